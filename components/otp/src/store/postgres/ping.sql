-- Reads from the schema, to see whether it can be asked.
SELECT 1::bigint FROM accounts LIMIT 1
