CREATE TRIGGER record_of_a_new_user AFTER INSERT ON users WHEN NEW.request IS NOT NULL
BEGIN
  INSERT INTO records (user_id) VALUES (NEW.id);
END
