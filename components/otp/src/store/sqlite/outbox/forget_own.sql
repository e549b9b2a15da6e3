-- Drops events of accounts that were accepted. An event is not parsed for its id.
-- ?1 of each its subject and its id as the event's text has it, as a JSON array of [subject, text]
DELETE FROM outbox WHERE sequence IN (
  SELECT sequence FROM json_each(?1) AS accepted
  CROSS JOIN outbox ON outbox.subject = accepted.value ->> 0 AND instr(event, accepted.value ->> 1) > 0)
