-- Events that wait to be published. A row is claimed for a moment, pushed, and deleted when accepted.
CREATE TABLE outbox (
  -- AUTOINCREMENT: a number is never given twice, not even after all rows are gone.
  sequence      INTEGER PRIMARY KEY AUTOINCREMENT,
  -- The event as JSON (CloudEvents). A code in it is sealed.
  event         TEXT    NOT NULL,
  created_at    INTEGER NOT NULL,
  -- Until when whoever claimed it has it to itself; whoever died leaves it to the next after that.
  claimed_until INTEGER NOT NULL DEFAULT 0,
  tries         INTEGER NOT NULL DEFAULT 0
) STRICT
