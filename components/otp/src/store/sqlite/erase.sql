-- Erases an account, if it is as it was when that was decided: a row comes back (migrations/sqlite).
-- ?1 subject  ?2 expected revision, 0 for none  ?3 floor of all that comes after  ?4 late  ?5 event
INSERT INTO erasures (subject, expected, floor, late, event) VALUES (?1, ?2, ?3, ?4, ?5)
RETURNING 1
