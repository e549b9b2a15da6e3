-- Drops events of accounts that were accepted.
-- ?1 of each its subject and its id, as a JSON array of [subject, id]
DELETE FROM outbox WHERE sequence IN (
  SELECT sequence FROM json_each(?1) AS accepted
  CROSS JOIN outbox ON outbox.subject = accepted.value ->> 0 AND event ->> '$.id' = accepted.value ->> 1)
