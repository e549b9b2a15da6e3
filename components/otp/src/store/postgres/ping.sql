-- Reads from the schema and writes nothing, as a statement that writes: a server that became read-only refuses it. No row of
-- forgotten has the id 1.
UPDATE forgotten SET up_to = up_to WHERE id = (SELECT 1 FROM accounts LIMIT 1) RETURNING 1::bigint
