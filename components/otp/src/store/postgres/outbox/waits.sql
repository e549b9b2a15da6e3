-- Whether there is anything to claim. Reading takes no lock that a writer would wait for. Asked for in an order, it is
-- read by the index, and not with all the room that events of before have left in the table.
-- $1 now  $2 length of a claim, in milliseconds  $3 how long an account's event is left to whoever wrote it, likewise
WITH types AS (SELECT $1::bigint, $2::bigint)
SELECT 1::bigint FROM outbox
WHERE claimed_until <= clock_millis() AND (subject IS NULL OR created_at <= clock_millis() - $3::bigint)
ORDER BY sequence LIMIT 1
