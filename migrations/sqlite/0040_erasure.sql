-- Removes all that is known of a number, and leaves the event on which others forget it, too: in one
-- statement, whether the number is known here or not.
CREATE TRIGGER erasure INSTEAD OF INSERT ON erasures
BEGIN
  DELETE FROM idempotency WHERE user_id = (SELECT id FROM users WHERE mobile_number = NEW.mobile_number);
  -- Those of the number while it was unknown are the decoy's (0033).
  -- What an erasure before has left is not touched: it knew the version, if it was the first.
  DELETE FROM outbox
  WHERE (user_id IN (0, (SELECT id FROM users WHERE mobile_number = NEW.mobile_number)) OR user_id IS NULL)
    AND CASE WHEN json_valid(event) THEN event ->> '$.subject' = NEW.subject AND event ->> '$.type' <> 'user.erased.v1' END;
  DELETE FROM outbox_dead
  WHERE CASE WHEN json_valid(event) THEN event ->> '$.subject' = NEW.subject AND event ->> '$.type' <> 'user.erased.v1' END;
  -- `version` is the newest code that there ever was: whatever of it is still on its way is not delivered. Both
  -- numbers are as small as can be, for those of a new user begin after them (0037).
  INSERT INTO outbox (event, created_at)
  SELECT json_set(NEW.event,
           '$.sequence', printf('%020d', coalesce(event_sequence + 1, at - 1)),
           '$.data.version', coalesce(version, at - 1)),
         at
  FROM (SELECT CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER) AS at)
  LEFT JOIN users ON mobile_number = NEW.mobile_number;
  UPDATE forgotten SET up_to = max(up_to, event_sequence + 1, version)
  FROM users WHERE mobile_number = NEW.mobile_number;
  DELETE FROM users WHERE mobile_number = NEW.mobile_number;
  -- The last number that was unknown stands in the decoy's.
  UPDATE users SET event = NULL, request = NULL WHERE id = 0 AND event ->> '$.subject' = NEW.subject;
END
