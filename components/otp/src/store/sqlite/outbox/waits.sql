-- Whether there is anything to claim. Reading takes no lock that a writer would wait for.
-- ?1 now  ?2 length of a claim, in milliseconds
SELECT 1 FROM outbox WHERE claimed_until <= ?1 OR claimed_until > ?1 + ?2 LIMIT 1
