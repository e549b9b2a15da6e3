-- Reads from the schema and writes nothing, as a statement that writes: a file that is not to be written refuses it. No row of
-- forgotten has the id 1.
UPDATE forgotten SET up_to = up_to WHERE id = (SELECT 1 FROM accounts LIMIT 1) RETURNING 1
