-- Takes the events that have waited longest, for a moment: nobody else takes them before it has passed. A
-- claim that lasts longer than any can was made while a clock was wrong, and does not count; nor does an event's youth if
-- it comes from the future.
-- ?1 now  ?2 length of the moment, in milliseconds  ?3 how long an account's event is left to whoever wrote it, likewise
-- ?4 how many at most
UPDATE outbox SET claimed_until = ?1 + ?2, tries = tries + 1
WHERE sequence IN (
  SELECT sequence FROM outbox
  WHERE (claimed_until <= ?1 OR claimed_until > ?1 + ?2) AND (subject IS NULL OR created_at NOT BETWEEN ?1 - ?3 + 1 AND ?1)
  ORDER BY sequence LIMIT ?4)
RETURNING sequence, event
