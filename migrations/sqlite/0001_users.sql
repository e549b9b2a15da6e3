-- A user, and the one code that a user has.
--
-- One row holds both: then whatever happens to a code is one statement on one row, and one statement
-- is what SQLite does atomically while requests share a connection.
-- All times are milliseconds since the Unix epoch.
CREATE TABLE users (
  id                   INTEGER PRIMARY KEY,
  -- E.164. The only thing that a request names a user by.
  mobile_number        TEXT    NOT NULL UNIQUE,
  -- Unverified while email_verified_at is null. A verified address is not overwritten: another one
  -- waits in pending_email until a code sent to it has been verified.
  email                TEXT,
  email_verified_at    INTEGER,
  pending_email        TEXT,
  -- When codes were lately sent to this number, oldest first, as a JSON array: an exact limit needs
  -- the moments themselves, and has to read and write them in the statement of the code.
  sends                TEXT    NOT NULL DEFAULT '[]',
  -- Wrong guesses in a row, across codes, and until when the number is refused because of them.
  consecutive_failures INTEGER NOT NULL DEFAULT 0,
  locked_until         INTEGER,

  -- The code. All null where a user has none any more.
  otp_id               TEXT,
  -- max(previous + 1, now): grows with every code of the number, also after the user was erased, a
  -- backup was restored or the file was lost, so a cached older code can always be told.
  version              INTEGER NOT NULL DEFAULT 0,
  -- Encrypted, to give the code again. Never the code itself.
  sealed               BLOB,
  -- Keyed hash of the code, so that the database can compare without knowing it.
  check_value          BLOB,
  channel              TEXT,
  -- Where the code went, if by mail: a right guess verifies this address and no other.
  address              TEXT,
  created_at           INTEGER,
  expires_at           INTEGER,
  -- Wrong values that were compared with this code.
  attempts             INTEGER NOT NULL DEFAULT 0,
  used_at              INTEGER,
  -- How the last guess was judged. A statement returns the row as it left it, and of sixteen right
  -- guesses at once the row alone would not tell which one won.
  last_verdict         TEXT
) STRICT
