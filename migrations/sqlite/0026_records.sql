-- A place to say that a request brought more than a code; 0027 puts that on record.
CREATE VIEW records AS SELECT id AS user_id FROM users
