CREATE TRIGGER event_of_a_new_user AFTER INSERT ON users WHEN NEW.event IS NOT NULL
BEGIN
  INSERT INTO outbox (event, created_at)
  SELECT event, CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)
  FROM user_events WHERE id = NEW.id;
END
