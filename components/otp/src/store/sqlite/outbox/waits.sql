-- Whether an event waits that nobody has claimed. Reading takes no lock that a writer would wait for.
-- ?1 now
SELECT 1 FROM outbox WHERE claimed_until <= ?1 LIMIT 1
