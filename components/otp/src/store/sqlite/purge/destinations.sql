-- Drops counts that are too old to decide anything.
-- ?1 first slot that is kept  ?2 how many at most
DELETE FROM destinations WHERE (application, prefix, slot) IN (SELECT application, prefix, slot FROM destinations WHERE slot < ?1 LIMIT ?2)
RETURNING 1
