-- Whether there is anything to claim. Reading takes no lock that a writer would wait for.
-- ?1 now  ?2 length of a claim, in milliseconds  ?3 how long an account's event is left to whoever wrote it, likewise
SELECT 1 FROM outbox
WHERE (claimed_until <= ?1 OR claimed_until > ?1 + ?2) AND (subject IS NULL OR created_at NOT BETWEEN ?1 - ?3 + 1 AND ?1)
LIMIT 1
