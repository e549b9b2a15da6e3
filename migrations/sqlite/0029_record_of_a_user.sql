CREATE TRIGGER record_of_a_user AFTER UPDATE OF event ON users
WHEN NEW.request IS NOT NULL AND NEW.event IS NOT OLD.event
BEGIN
  INSERT INTO records (user_id) VALUES (NEW.id);
END
