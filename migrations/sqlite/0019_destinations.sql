-- How many codes were sent to a range of numbers, and how many of them were verified, in short slots: whoever
-- pumps messages to a range for money verifies nothing. Counted after the answers, in batches.
CREATE TABLE destinations (
  -- Calling code and first digits, such as +4479.
  prefix   TEXT    NOT NULL,
  -- Number of the slot since the Unix epoch.
  slot     INTEGER NOT NULL,
  sent     INTEGER NOT NULL,
  verified INTEGER NOT NULL,
  PRIMARY KEY (prefix, slot)
) STRICT, WITHOUT ROWID
