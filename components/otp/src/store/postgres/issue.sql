-- Writes a code in the place of any other, creates or updates its user, and puts it on record: event, answer for a
-- retry, meters. Or refuses it, for the number's sake; `last_verdict` says which.
--
-- No row comes back if something else is in the way: a retry that was answered, a suspended range, a meter
-- that is full (`obstacle.sql` and `replay.sql` tell which).
--
-- A statement sees other tables as they were when it began, but the user's row as the one before it left it: it
-- waits for that. What was written elsewhere meanwhile it meets when it writes there itself, and then it gives up:
-- all of it is undone, as if there had never been a statement. So it does if it waited longer than its request (it
-- would replace the code that a retry has been given since), and if the number was erased meanwhile: a new number's
-- version begins after what was erased, or its code would be taken for one of before.
--
-- Meters go by the server's clock at the moment at which they are written: all who count share that.
--
-- The limit: `at` is this moment, or that of the last send if a clock elsewhere is ahead, so the moments
-- never go back; a code is sent if fewer than the limit were sent in (at - window, at]. Then no window of
-- that length ever has more. A moment that lies further ahead than a window was written by a wrong clock,
-- and does not count.
-- $1 number  $2 now  $3 event of the code, if it is issued  $4 what else is left on record, JSON or null
-- $5 1 if nobody shall be able to tell a refusal: each is put on record as if it were none; if not, only the
--    first of a window is
-- $6 sends allowed in a window, or 0 for any number  $7 the window, in milliseconds
-- $8 range of the number, or null if it need not be looked at
-- $9 otp id  $10 sealed  $11 check value  $12 expires
-- $13 channel  $14 address that the code goes to, if by mail  $15 address that the request told
-- $16 moment from which it is too late, by the server's clock
WITH types AS (
  SELECT $1::text, $2::bigint, $3::jsonb, $4::jsonb, $5::bigint, $6::bigint, $7::bigint, $8::text, $9::text,
         $10::bytea, $11::bytea, $12::bigint, $13::text, $14::text, $15::text, $16::bigint
),
written AS (
  INSERT INTO users AS known (mobile_number, otp_id, version, sealed, check_value, channel, address, created_at,
                              expires_at, email, last_verdict, sends, event_sequence, on_record)
  SELECT $1, $9, greatest($2, clock_millis(), up_to + 1), $10, $11, $13, $14, $2, $12, $15, 'done',
         CASE WHEN $6 > 0 THEN ARRAY[$2] ELSE '{}' END, greatest($2, up_to + 1), true
  FROM forgotten
  WHERE NOT EXISTS (SELECT FROM suspensions WHERE prefix = $8 AND until > $2)
    AND NOT EXISTS (SELECT FROM idempotency WHERE id = $4 #>> '{idempotency,id}' AND expires_at > $2)
    AND NOT EXISTS (SELECT FROM jsonb_array_elements($4 -> 'meters') AS wanted JOIN meters ON key = wanted ->> 'key'
                    WHERE empty_at > clock_micros() + (wanted ->> 'room')::bigint)
  ON CONFLICT (mobile_number) DO UPDATE SET
    (last_verdict, otp_id, version, sealed, check_value, channel, address, created_at, expires_at, attempts,
     used_at, email, pending_email, sends, refused_at, event_sequence, on_record) = (
    SELECT
      verdict,
      CASE WHEN done THEN excluded.otp_id ELSE known.otp_id END,
      CASE WHEN done THEN greatest(known.version + 1, $2) ELSE known.version END,
      CASE WHEN done THEN excluded.sealed ELSE known.sealed END,
      CASE WHEN done THEN excluded.check_value ELSE known.check_value END,
      CASE WHEN done THEN excluded.channel ELSE known.channel END,
      CASE WHEN done THEN excluded.address ELSE known.address END,
      CASE WHEN done THEN $2 ELSE known.created_at END,
      CASE WHEN done THEN $12 ELSE known.expires_at END,
      CASE WHEN done THEN 0 ELSE known.attempts END,
      CASE WHEN done THEN NULL ELSE known.used_at END,
      CASE WHEN done AND $15 IS NOT NULL AND known.email_verified_at IS NULL THEN $15 ELSE known.email END,
      -- A verified address stays until a code that was sent to the new one has been verified.
      CASE
        WHEN NOT done OR $15 IS NULL                                THEN known.pending_email
        WHEN known.email_verified_at IS NULL OR $15 = known.email   THEN NULL
        ELSE $15 END,
      CASE
        WHEN NOT done THEN known.sends
        WHEN $6 > 0   THEN ARRAY(SELECT send FROM unnest(known.sends) AS send
                                 WHERE send > at - $7 AND send <= at ORDER BY send) || at
        ELSE '{}' END,
      CASE WHEN says AND NOT done THEN $2 ELSE known.refused_at END,
      CASE WHEN says THEN greatest(known.event_sequence + 1, $2) ELSE known.event_sequence END,
      says
    FROM (
      SELECT verdict, at, verdict = 'done' AS done,
        verdict <> 'answered' AND (verdict = 'done' OR $5 = 1 OR known.refused_at IS NULL
          OR known.refused_at NOT BETWEEN $2 - $7 + 1 AND $2 + $7) AS says
      FROM (
        SELECT at, CASE
          -- By one that this has waited for: what it has used up refuses nobody who asked for the same.
          WHEN $4 #>> '{idempotency,id}' IS NOT NULL AND is_answered($4 #>> '{idempotency,id}', $2) THEN 'answered'
          WHEN known.locked_until > $2 THEN 'number_locked'
          WHEN $6 > 0 AND (SELECT count(*) FROM unnest(known.sends) AS send WHERE send > at - $7 AND send <= at) >= $6
            THEN 'rate_limited'
          ELSE 'done' END AS verdict
        FROM (SELECT greatest($2, (SELECT max(send) FROM unnest(known.sends) AS send WHERE send <= $2 + $7)) AS at)
          AS moment
      ) AS judged
    ) AS decided
  )
  RETURNING *, last_verdict = 'done' AS done, xmax::text = '0' AS is_new
),
put AS (
  INSERT INTO outbox (event, created_at, user_id)
  SELECT
    event_of_a_user(
      CASE WHEN done THEN $3
           ELSE $3 || jsonb_build_object('type', 'otp.limited.v1',
                                         'data', $3 -> 'data' || jsonb_build_object('reason', last_verdict)) END,
      event_sequence, channel, address, otp_id, version, sealed, created_at, expires_at),
    CASE
      WHEN clock_millis() >= $16                                                   THEN give_up('OTP01')
      WHEN is_new AND least(version, event_sequence) <= forgotten_up_to()          THEN give_up('OTP02')
      ELSE clock_millis() END,
    id
  FROM written WHERE on_record
),
answered AS (
  INSERT INTO idempotency AS kept (id, request, user_id, otp_id, sealed, channel, created_at, code_expires_at, expires_at)
  SELECT $4 #>> '{idempotency,id}', $4 #>> '{idempotency,request}', id,
         -- Of a refusal that was answered as if it were none, there is no code.
         CASE WHEN done THEN otp_id END, CASE WHEN done THEN sealed END, CASE WHEN done THEN channel END,
         CASE WHEN done THEN created_at END, CASE WHEN done THEN expires_at END,
         ($4 #>> '{idempotency,expiresAt}')::bigint
  FROM written WHERE (done OR $5 = 1) AND on_record AND $4 #>> '{idempotency,id}' IS NOT NULL
  -- One that has had its day may still be there.
  ON CONFLICT (id) DO UPDATE SET
    request = excluded.request, user_id = excluded.user_id, otp_id = excluded.otp_id, sealed = excluded.sealed, channel = excluded.channel,
    created_at = excluded.created_at, code_expires_at = excluded.code_expires_at,
    expires_at = CASE WHEN kept.expires_at <= $2 THEN excluded.expires_at ELSE give_up('OTP02') END
),
counted AS (
  INSERT INTO meters AS meter (key, empty_at)
  SELECT wanted ->> 'key', clock_micros() + (wanted ->> 'share')::bigint
  FROM written, jsonb_array_elements($4 -> 'meters') AS wanted
  WHERE (done OR $5 = 1) AND on_record
  -- In one order, or two requests might wait for each other.
  ORDER BY 1
  ON CONFLICT (key) DO UPDATE SET empty_at = (
    SELECT CASE WHEN meter.empty_at <= clock_micros() + (wanted ->> 'room')::bigint
                THEN greatest(meter.empty_at, clock_micros()) + (wanted ->> 'share')::bigint
                ELSE give_up('OTP02') END
    FROM jsonb_array_elements($4 -> 'meters') AS wanted WHERE wanted ->> 'key' = excluded.key)
)
SELECT last_verdict, to_json(sends)::text, locked_until, version FROM written
WHERE last_verdict <> 'answered'
