-- Events that were refused for good, or waited too long, with the reason: one bad event holds nobody up.
CREATE TABLE outbox_dead (
  sequence   INTEGER PRIMARY KEY,
  event      TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  died_at    INTEGER NOT NULL,
  reason     TEXT    NOT NULL
) STRICT
