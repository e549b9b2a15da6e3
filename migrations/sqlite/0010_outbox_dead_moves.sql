-- What is put among the dead leaves the outbox in the same statement.
CREATE TRIGGER outbox_dead_moves AFTER INSERT ON outbox_dead
BEGIN
  DELETE FROM outbox WHERE sequence = NEW.sequence;
END
