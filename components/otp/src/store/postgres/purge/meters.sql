-- Drops meters that are empty: as good as none. By the server's clock, which they were written by.
-- $1 now, in microseconds  $2 how many at most
WITH types AS (SELECT $1::bigint)
DELETE FROM meters WHERE key IN
  (SELECT key FROM meters WHERE empty_at <= clock_micros() LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
RETURNING 1::bigint
