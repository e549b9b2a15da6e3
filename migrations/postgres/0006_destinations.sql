-- How many codes were sent to a range of numbers, and how many of them were verified, in short slots: whoever
-- pumps messages to a range for money verifies nothing. Counted after the answers, in batches.
CREATE TABLE destinations (
  -- Calling code and first digits, such as +4479.
  prefix   text   NOT NULL,
  -- Number of the slot since the Unix epoch.
  slot     bigint NOT NULL,
  sent     bigint NOT NULL,
  verified bigint NOT NULL,
  PRIMARY KEY (prefix, slot)
);

CREATE INDEX destinations_by_age ON destinations (slot);

-- Ranges of numbers that nothing is sent to for a while.
CREATE TABLE suspensions (
  prefix  text   PRIMARY KEY,
  -- All times are milliseconds since the Unix epoch.
  since   bigint NOT NULL,
  until   bigint NOT NULL,
  -- How often in a row: each one lasts longer than the one before.
  strikes bigint NOT NULL
)
