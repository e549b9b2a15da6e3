-- Erasure: user.erased.v1 makes the ledger forget a number.

-- What the erasures of a number cover, so that what was said before them has no effect when it comes late.
-- Both only ever grow, as version and ended do.
-- The newest code that was erased. Neither it nor an older one is delivered or kept.
ALTER TABLE numbers ADD COLUMN erased INTEGER NOT NULL DEFAULT 0;
-- The sequence of an erasure that did not say which code was the newest; empty where each did. What comes
-- before it is not kept either.
ALTER TABLE numbers ADD COLUMN erased_sequence TEXT NOT NULL DEFAULT '';

-- What is to be forgotten is found by its number.
CREATE INDEX deliveries_subject ON deliveries (subject);
CREATE INDEX dead_key ON dead (key);

-- The events of deliveries as JSON, for as long as somebody needs them: with dead.value, the only places
-- where a number stands. Apart from deliveries, which remembers for weeks, it holds little, and can be
-- written anew after an erasure: where SQLite moves a row from one page to another it leaves the old bytes
-- behind, and secure_delete overwrites only what is deleted.
CREATE TABLE contents (
  event_id TEXT NOT NULL PRIMARY KEY,
  event    TEXT NOT NULL
) STRICT;
INSERT INTO contents (event_id, event) SELECT event_id, event FROM deliveries WHERE event IS NOT NULL;
ALTER TABLE deliveries DROP COLUMN event;
-- A trigger and no foreign key: with one, a DELETE of all rows would free no pages at once.
CREATE TRIGGER deliveries_contents AFTER DELETE ON deliveries BEGIN
  DELETE FROM contents WHERE event_id = OLD.event_id;
END;

-- Where rows wait while their table is written anew. Empty at all other times.
CREATE TABLE spare_contents (event_id TEXT NOT NULL, event TEXT NOT NULL) STRICT;
CREATE TABLE spare_dead (
  id      INTEGER NOT NULL,
  key     TEXT    NOT NULL,
  headers TEXT    NOT NULL,
  value   BLOB    NOT NULL,
  reason  TEXT    NOT NULL,
  died_at INTEGER NOT NULL,
  parked  INTEGER NOT NULL
) STRICT;
