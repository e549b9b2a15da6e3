-- Drops answers that are kept for no retry any more.
-- $1 now  $2 how many at most
DELETE FROM idempotency WHERE id IN
  (SELECT id FROM idempotency WHERE expires_at <= $1::bigint LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
RETURNING 1::bigint
