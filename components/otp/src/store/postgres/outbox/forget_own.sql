-- Drops events of accounts that were accepted. An event is not parsed for its id: that takes longer than all the rest.
-- $1 of each its subject and its id as the event's text has it, as a JSON array of [subject, text]
DELETE FROM outbox USING jsonb_array_elements($1::jsonb) AS accepted
WHERE outbox.subject = accepted ->> 0 AND strpos(event::text, accepted ->> 1) > 0
