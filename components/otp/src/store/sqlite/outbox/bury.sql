-- Moves events that were refused to the dead, each with its reason (a trigger takes them out of the
-- outbox).
-- ?1 now  ?2 JSON array of {"sequence", "reason"}
INSERT INTO outbox_dead (sequence, event, created_at, died_at, reason, subject)
SELECT outbox.sequence, outbox.event, outbox.created_at, ?1, refused.value ->> '$.reason', outbox.subject
FROM json_each(?2) AS refused
JOIN outbox ON outbox.sequence = refused.value ->> '$.sequence'
