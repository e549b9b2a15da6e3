-- Gives up a claim: whoever comes next takes them.
-- ?1 their sequences, as a JSON array
UPDATE outbox SET claimed_until = 0 WHERE sequence IN (SELECT value FROM json_each(?1))
