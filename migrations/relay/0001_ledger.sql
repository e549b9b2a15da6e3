-- The relay's ledger: what was read from the topic, and what became of it. Offset and outcome are written
-- in one transaction, so that whatever dies, a record counts once.
-- All times are milliseconds since the Unix epoch.

-- Where to go on reading.
CREATE TABLE offsets (
  topic     TEXT    NOT NULL,
  partition INTEGER NOT NULL,
  next      INTEGER NOT NULL,
  PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;

-- Events that were seen, remembered for longer than the topic keeps them: a second copy has no effect.
CREATE TABLE events (
  id      TEXT    PRIMARY KEY,
  seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX events_seen_at ON events (seen_at);

-- What is known of a number, by its keyed index. All of it only ever grows, so the order in which events
-- arrive does not matter.
CREATE TABLE numbers (
  subject TEXT    PRIMARY KEY,
  -- The newest code that was seen. An older one is not delivered any more.
  version INTEGER NOT NULL,
  -- The newest code that came to its end, by the right guess or by too many wrong ones. Neither it nor an
  -- older one is delivered.
  ended   INTEGER NOT NULL,
  -- The newest code that was erased. Neither it nor an older one is delivered or kept.
  erased  INTEGER NOT NULL,
  -- The sequence of an erasure that did not say which code was the newest; empty where each did. What comes
  -- before it is not kept either.
  erased_sequence TEXT NOT NULL,
  seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX numbers_seen_at ON numbers (seen_at);

-- Codes to be delivered, and what became of each.
CREATE TABLE deliveries (
  event_id   TEXT    PRIMARY KEY,
  otp_id     TEXT    NOT NULL,
  subject    TEXT    NOT NULL,
  version    INTEGER NOT NULL,
  sequence   TEXT    NOT NULL,
  channel    TEXT    NOT NULL,
  expires_at INTEGER NOT NULL,
  -- waiting, delivered, superseded, expired or failed
  state      TEXT    NOT NULL DEFAULT 'waiting',
  -- Rounds through the channel's providers, counted before each: who died in one may have sent it.
  attempts   INTEGER NOT NULL DEFAULT 0,
  -- Whether a round is under way.
  attempting INTEGER NOT NULL DEFAULT 0,
  -- When the next round is due.
  next_at    INTEGER NOT NULL,
  -- Who delivered it.
  provider   TEXT,
  -- Why the last round failed, or why it is not delivered.
  reason     TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE state = 'waiting';
CREATE INDEX deliveries_otp_id ON deliveries (otp_id);
CREATE INDEX deliveries_subject ON deliveries (subject);
CREATE INDEX deliveries_updated_at ON deliveries (updated_at);
CREATE INDEX deliveries_inbox ON deliveries (updated_at) WHERE state = 'delivered' AND provider = 'inbox';

-- The events of deliveries as JSON, the codes in them sealed, for as long as somebody needs them: with
-- dead.value, the only places where a number stands. Apart from deliveries, which remembers for weeks, it
-- holds little, and can be written anew after an erasure: where SQLite moves a row from one page to another it
-- leaves the old bytes behind, and secure_delete overwrites only what is deleted.
CREATE TABLE contents (
  event_id TEXT NOT NULL PRIMARY KEY,
  event    TEXT NOT NULL
) STRICT;
-- A trigger and no foreign key: with one, a DELETE of all rows would free no pages at once.
CREATE TRIGGER deliveries_contents AFTER DELETE ON deliveries BEGIN
  DELETE FROM contents WHERE event_id = OLD.event_id;
END;

-- What could not be processed, whole. With Kafka it goes on to the dead-letter topic from here.
CREATE TABLE dead (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  key       TEXT    NOT NULL,
  -- JSON array of [name, value]
  headers   TEXT    NOT NULL,
  value     BLOB    NOT NULL,
  reason    TEXT    NOT NULL,
  died_at   INTEGER NOT NULL,
  -- Whether it stays here, for the topic does not take it.
  parked    INTEGER NOT NULL DEFAULT 0
) STRICT;
-- What is to be forgotten is found by its number.
CREATE INDEX dead_key ON dead (key);

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
