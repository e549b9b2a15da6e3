-- The service's database, in Postgres; migrations/sqlite says of the tables what is not said here. All times are
-- milliseconds since the Unix epoch unless it is said otherwise.

-- The server's clock at this very moment, and not when the statement began: it may have waited since.
CREATE FUNCTION clock_millis() RETURNS bigint LANGUAGE sql VOLATILE AS
  'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint';
-- The same in microseconds.
CREATE FUNCTION clock_micros() RETURNS bigint LANGUAGE sql VOLATILE AS
  'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint';

-- All that is known of one recipient of one application, with its newest code. One row holds it all: who changes
-- anything has it to itself until it is committed, and says by which revision it went. What may happen is decided in
-- Rust (crates/otp-core).
CREATE TABLE accounts (
  -- The recipient's keyed index: another one in each application.
  subject           text    PRIMARY KEY,
  application       text    NOT NULL,
  -- A number in E.164, or a mail address.
  recipient         text    NOT NULL,
  -- max(previous + 1, now): grows with everything that is written, also after the account was erased or a backup was
  -- restored.
  revision          bigint  NOT NULL,
  email             text,
  email_verified_at bigint,
  pending_email     text,
  -- A JSON array.
  sends             text    NOT NULL,
  refused_at        bigint,
  failures          bigint  NOT NULL,
  locked_until      bigint,
  check_refused     text,

  -- The code. Null where there is none.
  otp_id            text,
  version           bigint,
  -- Encrypted. Never the code itself, and empty once it was used.
  sealed            bytea,
  check_value       bytea,
  channel           text,
  address           text,
  created_at        bigint,
  expires_at        bigint,
  attempts          bigint,
  used_at           bigint
)
-- Room for the next version of a row beside it: then no index has to be touched.
WITH (fillfactor = 70);

-- Rows of nobody's, see migrations/sqlite.
INSERT INTO accounts (subject, application, recipient, revision, sends, failures)
SELECT 'decoy ' || decoy, '', '', 0, '[]', 0 FROM generate_series(0, 63) AS decoy;

-- The greatest revision that an erased account had: those of a new account begin after it.
CREATE TABLE forgotten (
  id    bigint PRIMARY KEY CHECK (id = 0),
  up_to bigint NOT NULL
);
INSERT INTO forgotten (id, up_to) VALUES (0, 0);

-- Events that wait to be published.
CREATE TABLE outbox (
  sequence      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- Signed: its bytes stay as they are, which jsonb would not leave them. A code in it is sealed.
  event         json   NOT NULL,
  created_at    bigint NOT NULL,
  claimed_until bigint NOT NULL DEFAULT 0,
  tries         bigint NOT NULL DEFAULT 0,
  -- Whose event it is, and goes with. Null for what outlives an account.
  subject       text
)
-- Rows come and go: what they leave is cleaned up early.
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX outbox_of_an_account ON outbox (subject);

-- Events that were refused for good, or waited too long, with the reason.
CREATE TABLE outbox_dead (
  sequence   bigint PRIMARY KEY,
  event      json   NOT NULL,
  created_at bigint NOT NULL,
  died_at    bigint NOT NULL,
  reason     text   NOT NULL,
  subject    text
);
CREATE INDEX outbox_dead_of_an_account ON outbox_dead (subject);

-- What was answered to a request with an Idempotency-Key.
CREATE TABLE idempotency (
  id              text   PRIMARY KEY,
  subject         text   NOT NULL,
  request         text   NOT NULL,
  otp_id          text,
  channel         text,
  created_at      bigint,
  code_expires_at bigint,
  expires_at      bigint NOT NULL
);
CREATE INDEX idempotency_of_an_account ON idempotency (subject);
CREATE INDEX idempotency_by_age ON idempotency (expires_at);

-- How far the limits of clients, API keys and of everybody together are used up, where no cache counts.
CREATE TABLE meters (
  key      text   PRIMARY KEY,
  -- Microseconds since the Unix epoch.
  empty_at bigint NOT NULL
)
WITH (fillfactor = 70);

-- How many codes an application sent to a range of numbers, and how many of them were verified.
CREATE TABLE destinations (
  application text   NOT NULL,
  prefix      text   NOT NULL,
  slot        bigint NOT NULL,
  sent        bigint NOT NULL,
  verified    bigint NOT NULL,
  PRIMARY KEY (application, prefix, slot)
);
CREATE INDEX destinations_by_age ON destinations (slot);

-- Ranges of numbers that nothing is sent to for a while.
CREATE TABLE suspensions (
  application text   NOT NULL,
  prefix      text   NOT NULL,
  since       bigint NOT NULL,
  until       bigint NOT NULL,
  strikes     bigint NOT NULL,
  PRIMARY KEY (application, prefix)
);

-- Undoes the statement that calls it: others were quicker. What it says shows in the server's log, and so nothing of the
-- request is in it.
CREATE FUNCTION give_up() RETURNS void LANGUAGE plpgsql AS $give_up$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'OTP02', MESSAGE = 'overtaken by another request';
END
$give_up$;

-- Undoes the statement that calls it from that moment on: its request has been answered otherwise by then.
CREATE FUNCTION must_be_before(late bigint) RETURNS void LANGUAGE plpgsql AS $must_be_before$
BEGIN
  IF clock_millis() >= late THEN RAISE EXCEPTION USING ERRCODE = 'OTP01', MESSAGE = 'too late'; END IF;
END
$must_be_before$;

-- Counts a request on meters, JSON array of [key, share, room], if all of them have room. In one order, or two requests
-- might wait for each other.
CREATE FUNCTION count_on(wanted jsonb) RETURNS boolean LANGUAGE plpgsql AS $count_on$
DECLARE
  meter record;
BEGIN
  FOR meter IN SELECT value ->> 0 AS key, (value ->> 1)::bigint AS share, (value ->> 2)::bigint AS room
               FROM jsonb_array_elements(wanted) ORDER BY 1
  LOOP
    INSERT INTO meters AS known (key, empty_at) VALUES (meter.key, clock_micros() + meter.share)
    ON CONFLICT (key) DO UPDATE SET empty_at = greatest(known.empty_at, clock_micros()) + meter.share
    WHERE known.empty_at <= clock_micros() + meter.room;
    IF NOT FOUND THEN RETURN false; END IF;
  END LOOP;
  RETURN true;
END
$count_on$;

-- What is known of an account, and of what a request about it depends on, at this moment: also in a statement that began
-- before others were done. No row if `unless`.
--   whose, decoy   the account, and the decoy that is read where there is none
--   answer         the id under which an answer may be kept
--   keys           of meters, as a JSON array
CREATE FUNCTION known_record(
  unless boolean, whose text, decoy text, application text, range text, answer text, keys jsonb
) RETURNS TABLE (
  floor bigint, suspended_for bigint, empty_in text,
  request text, answer_otp_id text, answer_channel text, answer_created_at bigint, answer_code_expires_at bigint,
  subject text, application_ text, recipient text, revision bigint, email text, email_verified_at bigint,
  pending_email text, sends text, refused_at bigint, failures bigint, locked_until bigint, check_refused text,
  otp_id text, version bigint, sealed bytea, check_value bytea, channel text, address text, created_at bigint,
  expires_at bigint, attempts bigint, used_at bigint
) LANGUAGE plpgsql VOLATILE AS $known_record$
#variable_conflict use_column
BEGIN
  IF unless THEN RETURN; END IF;
  RETURN QUERY SELECT
    forgotten.up_to,
    (SELECT until - clock_millis() FROM suspensions
     WHERE suspensions.application = known_record.application AND prefix = range AND until > clock_millis()),
    CASE WHEN keys IS NOT NULL THEN
      (SELECT json_agg(coalesce(empty_at - clock_micros(), 0) ORDER BY place)::text
       FROM jsonb_array_elements_text(keys) WITH ORDINALITY AS wanted (key, place) LEFT JOIN meters USING (key)) END,
    kept.request, kept.otp_id, kept.channel, kept.created_at, kept.code_expires_at,
    account.subject, account.application, account.recipient, account.revision, account.email,
    account.email_verified_at, account.pending_email, account.sends, account.refused_at, account.failures,
    account.locked_until, account.check_refused, account.otp_id, account.version, account.sealed, account.check_value,
    account.channel, account.address, account.created_at, account.expires_at, account.attempts, account.used_at
  FROM forgotten
  LEFT JOIN accounts AS account ON account.subject = coalesce(
    (SELECT accounts.subject FROM accounts WHERE accounts.subject = whose), decoy)
  LEFT JOIN idempotency AS kept ON kept.id = answer AND kept.expires_at > clock_millis();
END
$known_record$;

-- What commit_record is told of an account and of an answer. Types of their own: where a newer version has given the
-- tables more columns, the older one still says what it knows.
CREATE TYPE account_as_decided AS (
  subject text, application text, recipient text, revision bigint, email text, email_verified_at bigint,
  pending_email text, sends text, refused_at bigint, failures bigint, locked_until bigint, check_refused text,
  otp_id text, version bigint, sealed bytea, check_value bytea, channel text, address text, created_at bigint,
  expires_at bigint, attempts bigint, used_at bigint
);
CREATE TYPE answer_as_given AS (
  id text, request text, otp_id text, channel text, created_at bigint, code_expires_at bigint, expires_at bigint
);

-- Writes all of it, or nothing if something is not as it was when that was decided, and tells which. It holds no rules:
-- it compares. Each of its statements sees what was committed before it, also what it has waited for.
--   account      what the account is from now on; its subject is null for none (the meters are all that counts)
--   expected     the revision that it has to have: 0 for none yet, null for whatever a decoy has
--   late         the moment from which nothing is done any more
--   event        what goes into the outbox, and `whose` it is
--   range        one that must not be suspended
--   answer       what is kept for a retry from now on; its id is one under which nothing may be kept yet, and its
--                request is null for nothing
--   wanted       meters that count the request, see count_on
CREATE FUNCTION commit_record(
  account account_as_decided, expected bigint, late bigint, event text, whose text, range text, answer answer_as_given,
  wanted jsonb
) RETURNS boolean LANGUAGE plpgsql AS $commit_record$
BEGIN
  PERFORM must_be_before(late);
  IF range IS NOT NULL AND EXISTS (
    SELECT FROM suspensions
    WHERE suspensions.application = account.application AND prefix = range AND until > clock_millis()
  ) THEN RETURN false; END IF;
  IF answer.id IS NOT NULL AND EXISTS (
    SELECT FROM idempotency WHERE id = answer.id AND idempotency.expires_at > clock_millis()
  ) THEN RETURN false; END IF;
  -- It is looked at again where it is written; but what is full writes nothing.
  IF wanted IS NOT NULL AND EXISTS (
    SELECT FROM jsonb_array_elements(wanted) AS meter JOIN meters ON key = meter ->> 0
    WHERE empty_at > clock_micros() + (meter ->> 2)::bigint
  ) THEN RETURN false; END IF;

  IF expected = 0 THEN
    INSERT INTO accounts
      (subject, application, recipient, revision, email, email_verified_at, pending_email, sends, refused_at, failures,
       locked_until, check_refused, otp_id, version, sealed, check_value, channel, address, created_at, expires_at,
       attempts, used_at)
    SELECT account.* ON CONFLICT (subject) DO NOTHING;
    IF NOT FOUND THEN RETURN false; END IF;
    IF account.revision <= (SELECT up_to FROM forgotten) THEN PERFORM give_up(); END IF;
  ELSIF account.subject IS NOT NULL THEN
    UPDATE accounts AS known SET
      (revision, email, email_verified_at, pending_email, sends, refused_at, failures, locked_until, check_refused,
       otp_id, version, sealed, check_value, channel, address, created_at, expires_at, attempts, used_at) =
      (account.revision, account.email, account.email_verified_at, account.pending_email, account.sends,
       account.refused_at, account.failures, account.locked_until, account.check_refused, account.otp_id,
       account.version, account.sealed, account.check_value, account.channel, account.address, account.created_at,
       account.expires_at, account.attempts, account.used_at)
    WHERE known.subject = account.subject AND known.revision = coalesce(expected, known.revision);
    IF NOT FOUND THEN RETURN false; END IF;
  END IF;

  IF answer.request IS NOT NULL THEN
    INSERT INTO idempotency AS kept
      (id, subject, request, otp_id, channel, created_at, code_expires_at, expires_at)
    VALUES (answer.id, whose, answer.request, answer.otp_id, answer.channel, answer.created_at, answer.code_expires_at,
            answer.expires_at)
    -- One whose time is over may still be there.
    ON CONFLICT (id) DO UPDATE SET
      (subject, request, otp_id, channel, created_at, code_expires_at, expires_at) =
      (excluded.subject, excluded.request, excluded.otp_id, excluded.channel, excluded.created_at,
       excluded.code_expires_at, excluded.expires_at)
    WHERE kept.expires_at <= clock_millis();
    IF NOT FOUND THEN PERFORM give_up(); END IF;
  END IF;
  IF wanted IS NOT NULL AND NOT count_on(wanted) THEN PERFORM give_up(); END IF;
  IF event IS NOT NULL THEN
    INSERT INTO outbox (event, created_at, subject) VALUES (event::json, clock_millis(), whose);
  END IF;
  -- It may have waited for others meanwhile.
  PERFORM must_be_before(late);
  RETURN true;
END
$commit_record$;

-- Removes all that is known of a recipient, known or not, and leaves the event on which others forget it, too. First the
-- account: what is written of it meanwhile is waited for, and goes with it.
CREATE FUNCTION erase_record(whose text, expected bigint, floor bigint, late bigint, event text)
RETURNS boolean LANGUAGE plpgsql AS $erase_record$
BEGIN
  IF expected = 0 THEN
    IF EXISTS (SELECT FROM accounts WHERE subject = whose) THEN RETURN false; END IF;
  ELSE
    DELETE FROM accounts WHERE subject = whose AND revision = expected;
    IF NOT FOUND THEN RETURN false; END IF;
  END IF;
  UPDATE forgotten SET up_to = floor WHERE up_to < floor;
  DELETE FROM idempotency WHERE subject = whose;
  DELETE FROM outbox WHERE subject = whose;
  DELETE FROM outbox_dead WHERE subject = whose;
  -- One that has come into being meanwhile is not meant, and what was deleted may be its own.
  IF expected = 0 AND EXISTS (SELECT FROM accounts WHERE subject = whose) THEN PERFORM give_up(); END IF;
  INSERT INTO outbox (event, created_at) VALUES (event::json, clock_millis());
  PERFORM must_be_before(late);
  RETURN true;
END
$erase_record$;
