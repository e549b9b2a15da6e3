-- Takes the events that have waited longest, for a moment: nobody else takes them before it has passed, by the
-- server's clock. What somebody else is taking just now is left to it.
-- $1 now  $2 length of the moment, in milliseconds  $3 how long an account's event is left to whoever wrote it, likewise
-- $4 how many at most
WITH types AS (SELECT $1::bigint, $2::bigint)
UPDATE outbox SET claimed_until = clock_millis() + $2, tries = tries + 1
WHERE sequence IN (
  SELECT sequence FROM outbox
  WHERE claimed_until <= clock_millis() AND (subject IS NULL OR created_at <= clock_millis() - $3::bigint)
  ORDER BY sequence LIMIT $4::bigint
  FOR UPDATE SKIP LOCKED)
RETURNING sequence, event::text
