CREATE TRIGGER event_of_a_suspension AFTER INSERT ON suspensions
BEGIN
  INSERT INTO outbox (event, created_at) VALUES (NEW.event, NEW.since);
END
