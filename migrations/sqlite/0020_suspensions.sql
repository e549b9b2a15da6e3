-- Ranges of numbers that nothing is sent to for a while.
CREATE TABLE suspensions (
  prefix  TEXT    PRIMARY KEY,
  -- All times are milliseconds since the Unix epoch.
  since   INTEGER NOT NULL,
  until   INTEGER NOT NULL,
  -- How often in a row: each one lasts longer than the one before.
  strikes INTEGER NOT NULL,
  -- What is put on record with it (0030).
  event   TEXT    NOT NULL
) STRICT, WITHOUT ROWID
