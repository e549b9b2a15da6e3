-- Writes a code for a known number in the place of any other, to the same channel and address, and puts it
-- on record. Or refuses it, as issue.sql does, and comes back without a row for the same reasons.
--
-- Where nobody shall be able to tell ($5), an unknown number stands for the decoy (migration 0002).
-- $1 to $8 as in issue.sql  $9 otp id  $10 sealed  $11 check value  $12 expires
-- $13 moment from which it is too late, by the server's clock
WITH types AS (
  SELECT $1::text, $2::bigint, $3::jsonb, $4::jsonb, $5::bigint, $6::bigint, $7::bigint, $8::text, $9::text,
         $10::bytea, $11::bytea, $12::bigint, $13::bigint
),
written AS (
  UPDATE users AS known SET
    (last_verdict, otp_id, version, sealed, check_value, channel, created_at, expires_at, attempts, used_at,
     sends, refused_at, event_sequence, on_record) = (
    SELECT
      verdict,
      CASE WHEN done THEN $9 ELSE known.otp_id END,
      CASE WHEN done THEN greatest(known.version + 1, $2) ELSE known.version END,
      CASE WHEN done THEN $10 ELSE known.sealed END,
      CASE WHEN done THEN $11 ELSE known.check_value END,
      CASE WHEN done THEN coalesce(known.channel, 'sms') ELSE known.channel END,
      CASE WHEN done THEN $2 ELSE known.created_at END,
      CASE WHEN done THEN $12 ELSE known.expires_at END,
      CASE WHEN done THEN 0 ELSE known.attempts END,
      CASE WHEN done THEN NULL ELSE known.used_at END,
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
          WHEN $4 #>> '{idempotency,id}' IS NOT NULL AND is_answered($4 #>> '{idempotency,id}', $2) THEN 'answered'
          WHEN known.mobile_number <> $1 THEN 'not_found'
          WHEN known.locked_until > $2   THEN 'number_locked'
          WHEN $6 > 0 AND (SELECT count(*) FROM unnest(known.sends) AS send WHERE send > at - $7 AND send <= at) >= $6
            THEN 'rate_limited'
          ELSE 'done' END AS verdict
        FROM (SELECT greatest($2, (SELECT max(send) FROM unnest(known.sends) AS send WHERE send <= $2 + $7)) AS at)
          AS moment
      ) AS judged
    ) AS decided
  )
  WHERE known.id = coalesce((SELECT id FROM users WHERE mobile_number = $1), CASE WHEN $5 = 1 THEN -(hashtext($1) & 63) END)
    AND NOT EXISTS (SELECT FROM suspensions WHERE prefix = $8 AND until > $2)
    AND NOT EXISTS (SELECT FROM idempotency WHERE idempotency.id = $4 #>> '{idempotency,id}' AND idempotency.expires_at > $2)
    AND NOT EXISTS (SELECT FROM jsonb_array_elements($4 -> 'meters') AS wanted JOIN meters ON key = wanted ->> 'key'
                    WHERE empty_at > clock_micros() + (wanted ->> 'room')::bigint)
  RETURNING *, last_verdict = 'done' AS done
),
put AS (
  INSERT INTO outbox (event, created_at, user_id)
  SELECT
    event_of_a_user(
      CASE WHEN done THEN $3
           ELSE $3 || jsonb_build_object('type', 'otp.limited.v1',
                                         'data', $3 -> 'data' || jsonb_build_object('reason', last_verdict)) END,
      event_sequence, channel, address, otp_id, version, sealed, created_at, expires_at),
    CASE WHEN clock_millis() < $13 THEN clock_millis() ELSE give_up('OTP01') END,
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
SELECT last_verdict, to_json(sends)::text, locked_until, version, channel FROM written
WHERE last_verdict <> 'answered'
