-- Takes the events that have waited longest, for a moment: nobody else takes them before it has passed. A
-- claim that lasts longer than any can was made while a clock was wrong, and does not count.
-- ?1 now  ?2 length of the moment, in milliseconds  ?3 how many at most
UPDATE outbox SET claimed_until = ?1 + ?2, tries = tries + 1
WHERE sequence IN (
  SELECT sequence FROM outbox
  WHERE claimed_until <= ?1 OR claimed_until > ?1 + ?2
  ORDER BY sequence LIMIT ?3)
RETURNING sequence, event
