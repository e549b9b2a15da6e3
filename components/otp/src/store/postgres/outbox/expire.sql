-- Moves events that have waited too long to the dead. Only the oldest are looked at: later ones have waited
-- less.
-- $1 now  $2 how long they may wait, in milliseconds  $3 how many at most
WITH old AS (
  SELECT sequence FROM outbox
  WHERE sequence IN (SELECT sequence FROM outbox ORDER BY sequence LIMIT $3::bigint)
    AND created_at < $1::bigint - $2::bigint
  ORDER BY sequence
  FOR UPDATE SKIP LOCKED
),
gone AS (
  DELETE FROM outbox USING old WHERE outbox.sequence = old.sequence
  RETURNING outbox.sequence, event, created_at, subject
),
dead AS (
  INSERT INTO outbox_dead (sequence, event, created_at, died_at, reason, subject)
  SELECT sequence, event, created_at, $1, 'waited longer than outbox_retention_seconds', subject FROM gone
)
SELECT 1::bigint FROM gone
