-- What was answered to a request with an Idempotency-Key, so that its retry hears the same. Written in the
-- statement of the code (0027), so that there is no code without it.
CREATE TABLE idempotency (
  -- Keyed hash of the caller's name, the route and the key: a key is its caller's and its route's own.
  id             TEXT    PRIMARY KEY,
  -- Keyed hash of what was asked for: the same key for something else is a mistake of the caller.
  request        TEXT    NOT NULL,
  user_id        INTEGER NOT NULL,
  -- The code, as it was then; null where a refusal was answered as if there were one.
  otp_id         TEXT,
  -- The code as it was sealed then: never in clear.
  sealed         BLOB,
  channel        TEXT,
  created_at     INTEGER,
  code_expires_at INTEGER,
  -- When the answer itself is forgotten.
  expires_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID
