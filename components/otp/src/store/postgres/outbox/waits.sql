-- Whether there is anything to claim. Reading takes no lock that a writer would wait for.
-- $1 now  $2 length of a claim, in milliseconds
WITH types AS (SELECT $1::bigint, $2::bigint)
SELECT 1::bigint FROM outbox WHERE claimed_until <= clock_millis() LIMIT 1
