-- Drops events that were accepted.
-- ?1 their sequences, as a JSON array
DELETE FROM outbox WHERE sequence IN (SELECT value FROM json_each(?1))
