CREATE TRIGGER event_of_a_new_user AFTER INSERT ON users WHEN NEW.event IS NOT NULL
BEGIN
  INSERT INTO outbox (event, created_at, user_id)
  SELECT event, CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER), id
  FROM user_events WHERE id = NEW.id;
END
