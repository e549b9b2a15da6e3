-- Gives up a claim: whoever comes next takes them.
-- $1 their sequences, as a JSON array
UPDATE outbox SET claimed_until = 0 WHERE sequence IN (SELECT value::bigint FROM jsonb_array_elements_text($1::jsonb))
