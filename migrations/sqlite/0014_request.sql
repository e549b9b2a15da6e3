-- What the last request that was accepted brought beside the code, as JSON: `meters` that it counts on, its
-- `idempotency` key. Null where it brought nothing. A statement cannot return what its own trigger
-- reckoned, but it can leave word for it.
ALTER TABLE users ADD COLUMN request TEXT
