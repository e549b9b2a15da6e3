-- Judges a guess, writes down what follows from it, puts it on record, and returns the judgement.
--
-- The inner query sees the row as the statement before it left it, once, and everything follows from its one
-- verdict: no two guesses can both be the winning one, and a guess past the limit is never compared.
-- Too late, it does nothing: see issue.sql. No row comes back for a full meter, either.
-- $1 number  $2 now  $3 event of a right guess; another one has another type, and a reason
-- $4 what else is left on record, JSON or null
-- $5 1 if nobody shall be able to tell an unknown number: it stands for the decoy then (migration 0002)
-- $6 wrong guesses in a row, of all codes of the number, at which the number is locked
-- $7 for how long, in milliseconds
-- $8 otp id that will do, or null  $9 check value of the guess  $10 attempts allowed
-- $11 moment from which it is too late, by the server's clock
WITH types AS (
  SELECT $1::text, $2::bigint, $3::jsonb, $4::jsonb, $5::bigint, $6::bigint, $7::bigint, $8::text, $9::bytea,
         $10::bigint, $11::bigint
),
written AS (
  UPDATE users AS known SET
    (last_verdict, attempts, used_at, consecutive_failures, locked_until, email_verified_at, email, pending_email,
     event_sequence, on_record) = (
    SELECT
      verdict,
      known.attempts + (verdict = 'wrong')::int,
      CASE verdict WHEN 'right' THEN $2 ELSE known.used_at END,
      -- After a lock they are counted anew.
      CASE
        WHEN verdict = 'right' OR locks THEN 0
        WHEN verdict = 'wrong'          THEN known.consecutive_failures + 1
        ELSE known.consecutive_failures END,
      CASE WHEN locks THEN $2 + $7 ELSE known.locked_until END,
      -- A code that came by mail proves the address that it went to.
      CASE
        WHEN proved = known.pending_email THEN $2
        WHEN proved = known.email         THEN coalesce(known.email_verified_at, $2)
        ELSE known.email_verified_at END,
      CASE WHEN proved = known.pending_email THEN known.pending_email ELSE known.email END,
      CASE WHEN proved = known.pending_email THEN NULL ELSE known.pending_email END,
      CASE WHEN says THEN greatest(known.event_sequence + 1, $2) ELSE known.event_sequence END,
      says
    FROM (
      SELECT verdict, CASE verdict WHEN 'right' THEN known.address END AS proved,
             verdict = 'wrong' AND known.consecutive_failures + 1 >= $6 AS locks,
             verdict <> 'not_found' OR $5 = 1 AS says
      FROM (
        SELECT CASE
          WHEN known.mobile_number <> $1                                          THEN 'not_found'
          WHEN known.locked_until > $2                                            THEN 'number_locked'
          WHEN known.otp_id IS NULL OR known.otp_id <> coalesce($8, known.otp_id) THEN 'not_found'
          WHEN known.used_at IS NOT NULL                                          THEN 'used'
          WHEN known.expires_at <= $2                                             THEN 'expired'
          WHEN known.attempts >= $10                                              THEN 'locked'
          WHEN known.check_value = $9                                             THEN 'right'
          ELSE 'wrong' END AS verdict
      ) AS judged
    ) AS decided
  )
  WHERE known.id = coalesce((SELECT id FROM users WHERE mobile_number = $1), CASE WHEN $5 = 1 THEN -(hashtext($1) & 63) END)
    AND NOT EXISTS (SELECT FROM jsonb_array_elements($4 -> 'meters') AS wanted JOIN meters ON key = wanted ->> 'key'
                    WHERE empty_at > clock_micros() + (wanted ->> 'room')::bigint)
  -- A number that was locked before is not guessed at: if it is locked after a wrong guess, that guess did it.
  RETURNING *, last_verdict = 'wrong' AND coalesce(locked_until, 0) > $2 AS locks
),
put AS (
  INSERT INTO outbox (event, created_at, user_id)
  SELECT
    event_of_a_user(
      CASE WHEN last_verdict = 'right' THEN $3
           ELSE $3 || jsonb_build_object(
             'type', CASE WHEN locks OR last_verdict = 'wrong' AND attempts >= $10
                          THEN 'otp.locked.v1' ELSE 'otp.verification-failed.v1' END,
             'data', $3 -> 'data' || jsonb_build_object(
               'reason', CASE WHEN locks THEN 'number_locked' ELSE last_verdict END)) END,
      event_sequence, channel, address, otp_id, version, sealed, created_at, expires_at),
    CASE WHEN clock_millis() < $11 THEN clock_millis() ELSE give_up('OTP01') END,
    id
  FROM written WHERE on_record
),
counted AS (
  INSERT INTO meters AS meter (key, empty_at)
  SELECT wanted ->> 'key', clock_micros() + (wanted ->> 'share')::bigint
  FROM written, jsonb_array_elements($4 -> 'meters') AS wanted
  WHERE on_record
  -- In one order, or two requests might wait for each other.
  ORDER BY 1
  ON CONFLICT (key) DO UPDATE SET empty_at = (
    SELECT CASE WHEN meter.empty_at <= clock_micros() + (wanted ->> 'room')::bigint
                THEN greatest(meter.empty_at, clock_micros()) + (wanted ->> 'share')::bigint
                ELSE give_up('OTP02') END
    FROM jsonb_array_elements($4 -> 'meters') AS wanted WHERE wanted ->> 'key' = excluded.key)
)
SELECT last_verdict, locked_until, attempts, otp_id, version, channel FROM written
