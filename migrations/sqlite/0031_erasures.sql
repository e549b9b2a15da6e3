-- A place to say that a user is to be erased; 0032 does it.
CREATE VIEW erasures AS SELECT mobile_number, NULL AS subject, event FROM users
