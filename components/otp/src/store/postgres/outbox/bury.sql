-- Moves events that were refused to the dead, each with its reason.
-- $1 now  $2 JSON array of {"sequence", "reason"}
WITH refused AS (
  SELECT (refused ->> 'sequence')::bigint AS sequence, refused ->> 'reason' AS reason
  FROM jsonb_array_elements($2::jsonb) AS refused
),
gone AS (
  DELETE FROM outbox USING refused WHERE outbox.sequence = refused.sequence
  RETURNING outbox.sequence, event, created_at, reason, subject
)
INSERT INTO outbox_dead (sequence, event, created_at, died_at, reason, subject)
SELECT sequence, event, created_at, $1::bigint, reason, subject FROM gone
