-- Drops events that were accepted.
-- $1 their sequences, as a JSON array
DELETE FROM outbox WHERE sequence IN (SELECT value::bigint FROM jsonb_array_elements_text($1::jsonb))
