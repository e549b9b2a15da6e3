-- Drops the dead that have been there as long as an event may wait.
-- $1 now  $2 how long, in milliseconds  $3 how many at most
DELETE FROM outbox_dead WHERE sequence IN
  (SELECT sequence FROM outbox_dead WHERE died_at < $1::bigint - $2::bigint
   ORDER BY sequence LIMIT $3::bigint FOR UPDATE SKIP LOCKED)
RETURNING 1::bigint
