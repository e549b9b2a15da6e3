-- Drops meters that are empty: as good as none.
-- $1 now, in microseconds  $2 how many at most
DELETE FROM meters WHERE key IN
  (SELECT key FROM meters WHERE empty_at <= $1::bigint LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
RETURNING 1::bigint
