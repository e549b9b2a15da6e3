-- Drops counts that are too old to decide anything.
-- $1 first slot that is kept  $2 how many at most
DELETE FROM destinations WHERE (application, prefix, slot) IN
  (SELECT application, prefix, slot FROM destinations WHERE slot < $1::bigint LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
RETURNING 1::bigint
