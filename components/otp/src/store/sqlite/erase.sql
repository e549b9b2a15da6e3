-- Erases a user (migration 0032 says how).
-- Too late, it does nothing: see issue.sql.
-- ?1 number  ?2 now  ?3 keyed index of the number  ?4 event  ?5 moment from which it is too late
INSERT INTO erasures (mobile_number, subject, event)
SELECT ?1, ?3, ?4 WHERE (julianday('now') - 2440587.5) * 86400000.0 < ?5
