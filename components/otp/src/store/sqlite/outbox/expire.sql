-- Moves events that have waited too long to the dead. Only the oldest are looked at: later ones have waited
-- less.
-- ?1 now  ?2 how long they may wait, in milliseconds  ?3 how many at most
INSERT INTO outbox_dead (sequence, event, created_at, died_at, reason, subject)
SELECT sequence, event, created_at, ?1, 'waited longer than outbox_retention_seconds', subject
FROM (SELECT * FROM outbox ORDER BY sequence LIMIT ?3) WHERE created_at < ?1 - ?2
RETURNING 1
