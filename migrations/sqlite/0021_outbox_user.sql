-- Whose event it is, for erasing a user. Null for events of a range, of an erasure, and of the time before.
ALTER TABLE outbox ADD COLUMN user_id INTEGER
