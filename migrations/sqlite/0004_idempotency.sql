-- What was answered to a request with an Idempotency-Key, so that its retry hears the same.
CREATE TABLE idempotency (
  -- A key is its caller's and its route's own.
  api_key      TEXT    NOT NULL,
  route        TEXT    NOT NULL,
  key          TEXT    NOT NULL,
  -- Hash of the request's body: the same key with another body is a mistake of the caller.
  request_hash BLOB    NOT NULL,
  -- The answer, sealed, for it holds a code.
  answer       BLOB    NOT NULL,
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  PRIMARY KEY (api_key, route, key)
) STRICT, WITHOUT ROWID
