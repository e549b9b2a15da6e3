-- Drops events of accounts that were accepted.
-- $1 of each its subject and its id, as a JSON array of [subject, id]
DELETE FROM outbox USING jsonb_array_elements($1::jsonb) AS accepted
WHERE outbox.subject = accepted ->> 0 AND event ->> 'id' = accepted ->> 1
