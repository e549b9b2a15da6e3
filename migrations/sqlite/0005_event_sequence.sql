-- Grows with every event of the user: max(previous + 1, now), as the code's version does and for the same
-- reasons. Whoever reads the events of one number in another order goes by it.
ALTER TABLE users ADD COLUMN event_sequence INTEGER NOT NULL DEFAULT 0
