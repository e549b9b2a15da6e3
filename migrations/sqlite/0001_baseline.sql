-- The service's database, in SQLite. All times are milliseconds since the Unix epoch unless it is said otherwise.
-- A line of two dashes and a semicolon stands between two statements: Spin takes one a call.

-- All that is known of one recipient of one application, with its newest code. One row holds it all: then whatever
-- happens is one write, under its revision. What may happen is decided in Rust (crates/otp-core).
CREATE TABLE accounts (
  -- The recipient's keyed index: another one in each application.
  subject           TEXT    NOT NULL PRIMARY KEY,
  application       TEXT    NOT NULL,
  -- A number in E.164, or a mail address.
  recipient         TEXT    NOT NULL,
  -- max(previous + 1, now): grows with everything that is written, also after the account was erased, a backup was
  -- restored or the file was lost. Whoever writes says which one it went by.
  revision          INTEGER NOT NULL,
  -- Unverified while email_verified_at is null. A verified address is not overwritten: another one waits in
  -- pending_email until a code sent to it has been verified.
  email             TEXT,
  email_verified_at INTEGER,
  pending_email     TEXT,
  -- When codes were lately sent, oldest first, as a JSON array: an exact limit needs the moments themselves.
  sends             TEXT    NOT NULL,
  -- When a refusal to send was last put on record.
  refused_at        INTEGER,
  -- Wrong guesses in a row, across codes, and until when the recipient is refused because of them.
  failures          INTEGER NOT NULL,
  locked_until      INTEGER,
  -- Why a check was last refused without comparing: that is on record once.
  check_refused     TEXT,

  -- The code. Null where there is none.
  otp_id            TEXT,
  -- The revision at which it was made.
  version           INTEGER,
  -- Encrypted, to give the code again. Never the code itself, and empty once it was used.
  sealed            BLOB,
  -- Keyed hash of the code, which a guess is compared with.
  check_value       BLOB,
  channel           TEXT,
  -- Where it went, if by mail: a right guess verifies this address and no other.
  address           TEXT,
  created_at        INTEGER,
  expires_at        INTEGER,
  -- Wrong values that were compared with it.
  attempts          INTEGER,
  used_at           INTEGER
) STRICT;
--;
-- Rows of nobody's. Where answers must not tell a known recipient from an unknown one, one of these is read and written
-- in place of the account that is not there: the same work, the same time.
INSERT INTO accounts (subject, application, recipient, revision, sends, failures)
WITH RECURSIVE decoys (decoy) AS (SELECT 0 UNION ALL SELECT decoy + 1 FROM decoys WHERE decoy < 63)
SELECT 'decoy ' || decoy, '', '', 0, '[]', 0 FROM decoys;
--;
-- The greatest revision that an erased account had. Those of a new account begin after it: a recipient that is erased and
-- used again within one millisecond, or by a clock that stands behind, must not take up where it was.
CREATE TABLE forgotten (
  id    INTEGER PRIMARY KEY CHECK (id = 0),
  up_to INTEGER NOT NULL
) STRICT;
--;
INSERT INTO forgotten (id, up_to) VALUES (0, 0);
--;
-- Events that wait to be published. A row is claimed for a moment, pushed, and deleted when accepted.
CREATE TABLE outbox (
  -- AUTOINCREMENT: a number is never given twice, not even after all rows are gone. A push that is still under way drops
  -- what it has pushed by its number.
  sequence      INTEGER PRIMARY KEY AUTOINCREMENT,
  -- The event as JSON (CloudEvents), signed: its bytes stay as they are. A code in it is sealed.
  event         TEXT    NOT NULL,
  created_at    INTEGER NOT NULL,
  -- Until when whoever claimed it has it to itself; whoever died leaves it to the next after that.
  claimed_until INTEGER NOT NULL DEFAULT 0,
  tries         INTEGER NOT NULL DEFAULT 0,
  -- Whose event it is, and goes with. Null for what outlives an account: its erasure, the suspension of a range.
  subject       TEXT
) STRICT;
--;
CREATE INDEX outbox_of_an_account ON outbox (subject);
--;
-- Events that were refused for good, or waited too long, with the reason: one bad event holds nobody up.
CREATE TABLE outbox_dead (
  sequence   INTEGER PRIMARY KEY,
  event      TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  died_at    INTEGER NOT NULL,
  reason     TEXT    NOT NULL,
  subject    TEXT
) STRICT;
--;
CREATE INDEX outbox_dead_of_an_account ON outbox_dead (subject);
--;
-- What is put among the dead leaves the outbox in the same statement.
CREATE TRIGGER outbox_dead_moves AFTER INSERT ON outbox_dead
BEGIN
  DELETE FROM outbox WHERE sequence = NEW.sequence;
END;
--;
-- What was answered to a request with an Idempotency-Key, so that its retry hears the same.
CREATE TABLE idempotency (
  -- Keyed hash of the application, the route and the key: a key is its application's and its route's own.
  id              TEXT    PRIMARY KEY,
  -- Whose account it is about.
  subject         TEXT    NOT NULL,
  -- Keyed hash of what was asked for: the same key for something else is a mistake of the caller.
  request         TEXT    NOT NULL,
  -- The code, without the code itself; null where a refusal was answered as if there were one.
  otp_id          TEXT,
  channel         TEXT,
  created_at      INTEGER,
  code_expires_at INTEGER,
  -- When the answer itself is forgotten.
  expires_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
--;
CREATE INDEX idempotency_of_an_account ON idempotency (subject);
--;
CREATE INDEX idempotency_by_age ON idempotency (expires_at);
--;
-- How far the limits of clients, API keys and of everybody together are used up, where no cache counts.
--
-- One number a meter (the generic cell rate algorithm, ITU-T I.371): the moment at which it would be empty again. Each
-- request puts that moment off by its share of the window.
CREATE TABLE meters (
  -- Which limit, and of whom. An address is in it as a keyed hash only.
  key      TEXT    PRIMARY KEY,
  -- Microseconds since the Unix epoch.
  empty_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
--;
CREATE INDEX meters_by_age ON meters (empty_at);
--;
-- How many codes an application sent to a range of numbers, and how many of them were verified, in short slots: who
-- pumps messages to a range for money verifies nothing. Counted after the answers, in batches.
CREATE TABLE destinations (
  application TEXT    NOT NULL,
  -- Calling code and first digits, such as +4479.
  prefix      TEXT    NOT NULL,
  -- Number of the slot since the Unix epoch.
  slot        INTEGER NOT NULL,
  sent        INTEGER NOT NULL,
  verified    INTEGER NOT NULL,
  PRIMARY KEY (application, prefix, slot)
) STRICT, WITHOUT ROWID;
--;
CREATE INDEX destinations_by_age ON destinations (slot);
--;
-- Ranges of numbers that nothing is sent to for a while.
CREATE TABLE suspensions (
  application TEXT    NOT NULL,
  prefix      TEXT    NOT NULL,
  since       INTEGER NOT NULL,
  until       INTEGER NOT NULL,
  -- How often in a row: each one lasts longer than the one before.
  strikes     INTEGER NOT NULL,
  -- What is put on record with it.
  event       TEXT    NOT NULL,
  PRIMARY KEY (application, prefix)
) STRICT, WITHOUT ROWID;
--;
-- This moment, of the statement that asks.
CREATE VIEW clock AS
SELECT CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)    AS millis,
       CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER) AS micros;
--;
CREATE TRIGGER event_of_a_suspension AFTER INSERT ON suspensions
BEGIN
  INSERT INTO outbox (event, created_at) VALUES (NEW.event, NEW.since);
END;
--;
-- A place to say what is to be written; the trigger writes it. A statement is atomic, and so is what it fires.
CREATE VIEW commits AS
SELECT accounts.*, NULL AS expected, NULL AS late, NULL AS event, NULL AS event_subject, NULL AS prefix, NULL AS answer,
       NULL AS request, NULL AS answer_otp_id, NULL AS answer_channel, NULL AS answer_created_at,
       NULL AS answer_code_expires_at, NULL AS answer_expires_at, NULL AS meters
FROM accounts;
--;
-- Writes all of it, or nothing if something is not as it was when that was decided. It holds no rules: it compares.
--   subject        which account; null for none (the meters are all that counts)
--   expected       the revision that it has to have: 0 for none yet, null for whatever a decoy has
--   late           the moment from which nothing is done any more
--   event, event_subject   what goes into the outbox, and whose it is
--   prefix         a range that must not be suspended
--   answer         the id under which no answer may be kept yet
--   request …      the answer that is kept under it from now on; null for none
--   meters         JSON array of [key, share, room] that count the request, if all of them have room
CREATE TRIGGER commits_are_written INSTEAD OF INSERT ON commits
BEGIN
  SELECT RAISE(IGNORE) FROM clock
  WHERE millis >= NEW.late
     OR NEW.expected <> coalesce((SELECT revision FROM accounts WHERE subject = NEW.subject), 0)
     OR (NEW.expected = 0 AND NEW.revision <= (SELECT up_to FROM forgotten))
     OR EXISTS (SELECT 1 FROM suspensions WHERE application = NEW.application AND prefix = NEW.prefix AND until > millis)
     OR EXISTS (SELECT 1 FROM idempotency WHERE id = NEW.answer AND expires_at > millis)
     OR EXISTS (SELECT 1 FROM json_each(NEW.meters) AS wanted JOIN meters ON meters.key = wanted.value ->> 0
                WHERE empty_at > micros + (wanted.value ->> 2));

  INSERT INTO accounts (subject, application, recipient, revision, email, email_verified_at, pending_email, sends,
                        refused_at, failures, locked_until, check_refused, otp_id, version, sealed, check_value,
                        channel, address, created_at, expires_at, attempts, used_at)
  SELECT NEW.subject, NEW.application, NEW.recipient, NEW.revision, NEW.email, NEW.email_verified_at, NEW.pending_email,
         NEW.sends, NEW.refused_at, NEW.failures, NEW.locked_until, NEW.check_refused, NEW.otp_id, NEW.version,
         NEW.sealed, NEW.check_value, NEW.channel, NEW.address, NEW.created_at, NEW.expires_at, NEW.attempts, NEW.used_at
  WHERE NEW.subject IS NOT NULL
  ON CONFLICT (subject) DO UPDATE SET
    revision = excluded.revision, email = excluded.email, email_verified_at = excluded.email_verified_at,
    pending_email = excluded.pending_email, sends = excluded.sends, refused_at = excluded.refused_at,
    failures = excluded.failures, locked_until = excluded.locked_until, check_refused = excluded.check_refused,
    otp_id = excluded.otp_id, version = excluded.version, sealed = excluded.sealed, check_value = excluded.check_value,
    channel = excluded.channel, address = excluded.address, created_at = excluded.created_at,
    expires_at = excluded.expires_at, attempts = excluded.attempts, used_at = excluded.used_at;

  INSERT INTO outbox (event, created_at, subject)
  SELECT NEW.event, millis, NEW.event_subject FROM clock WHERE NEW.event IS NOT NULL;

  INSERT INTO idempotency (id, subject, request, otp_id, channel, created_at, code_expires_at, expires_at)
  SELECT NEW.answer, NEW.event_subject, NEW.request, NEW.answer_otp_id, NEW.answer_channel, NEW.answer_created_at,
         NEW.answer_code_expires_at, NEW.answer_expires_at
  WHERE NEW.request IS NOT NULL
  -- One whose time is over may still be there.
  ON CONFLICT (id) DO UPDATE SET
    subject = excluded.subject, request = excluded.request, otp_id = excluded.otp_id, channel = excluded.channel,
    created_at = excluded.created_at, code_expires_at = excluded.code_expires_at, expires_at = excluded.expires_at;

  INSERT INTO meters (key, empty_at)
  SELECT wanted.value ->> 0, max(coalesce(known.empty_at, 0), micros) + (wanted.value ->> 1)
  FROM json_each(NEW.meters) AS wanted CROSS JOIN clock LEFT JOIN meters AS known ON known.key = wanted.value ->> 0
  WHERE true
  ON CONFLICT (key) DO UPDATE SET empty_at = excluded.empty_at;
END;
--;
-- A place to say that an account is to be erased.
CREATE VIEW erasures AS
SELECT subject, revision AS expected, NULL AS floor, NULL AS late, NULL AS event FROM accounts;
--;
-- Removes all that is known of a recipient, known or not, and leaves the event on which others forget it, too. What an
-- erasure before has left is nobody's, and stays.
CREATE TRIGGER erasures_are_done INSTEAD OF INSERT ON erasures
BEGIN
  SELECT RAISE(IGNORE) FROM clock
  WHERE millis >= NEW.late OR NEW.expected <> coalesce((SELECT revision FROM accounts WHERE subject = NEW.subject), 0);
  DELETE FROM accounts WHERE subject = NEW.subject;
  DELETE FROM idempotency WHERE subject = NEW.subject;
  DELETE FROM outbox WHERE subject = NEW.subject;
  DELETE FROM outbox_dead WHERE subject = NEW.subject;
  UPDATE forgotten SET up_to = max(up_to, NEW.floor);
  INSERT INTO outbox (event, created_at) SELECT NEW.event, millis FROM clock;
END;
