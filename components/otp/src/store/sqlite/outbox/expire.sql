-- Moves events that have waited too long to the dead.
-- ?1 now  ?2 how long they may wait, in milliseconds  ?3 how many at most
INSERT INTO outbox_dead (sequence, event, created_at, died_at, reason)
SELECT sequence, event, created_at, ?1, 'waited longer than outbox_retention_seconds'
FROM outbox WHERE created_at < ?1 - ?2 ORDER BY sequence LIMIT ?3
RETURNING 1
