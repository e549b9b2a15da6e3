-- A statement that leaves the event as it was leaves none: it found nothing to say.
CREATE TRIGGER event_of_a_user AFTER UPDATE OF event ON users WHEN NEW.event IS NOT NULL AND NEW.event IS NOT OLD.event
BEGIN
  INSERT INTO outbox (event, created_at, user_id)
  SELECT event, CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER), id
  FROM user_events WHERE id = NEW.id;
END
