-- Drops answers that are kept for no retry any more.
-- ?1 now  ?2 how many at most
DELETE FROM idempotency WHERE id IN (SELECT id FROM idempotency WHERE expires_at <= ?1 LIMIT ?2)
RETURNING 1
