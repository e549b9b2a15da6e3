-- The newest code of a number, and the sealed code itself unless that very version is cached. If the code
-- is live and may be given again, that is put on record: whoever is given it shall have it delivered. Or
-- refuses it, as reissue.sql does, and comes back without a row for the same reasons.
-- $1 to $8 as in issue.sql  $9 version that is cached, or null  $10 attempts allowed
-- $11 moment from which it is too late, by the server's clock
WITH types AS (
  SELECT $1::text, $2::bigint, $3::jsonb, $4::jsonb, $5::bigint, $6::bigint, $7::bigint, $8::text, $9::bigint,
         $10::bigint, $11::bigint
),
written AS (
  UPDATE users AS known SET (last_verdict, sends, refused_at, event_sequence, on_record) = (
    SELECT
      verdict,
      CASE
        WHEN NOT done THEN known.sends
        WHEN $6 > 0   THEN ARRAY(SELECT send FROM unnest(known.sends) AS send
                                 WHERE send > at - $7 AND send <= at ORDER BY send) || at
        ELSE '{}' END,
      CASE WHEN says AND NOT done THEN $2 ELSE known.refused_at END,
      CASE WHEN says THEN greatest(known.event_sequence + 1, $2) ELSE known.event_sequence END,
      says
    FROM (
      SELECT verdict, at, verdict = 'done' AS done, CASE
        WHEN verdict = 'done' OR $5 = 1                         THEN true
        WHEN verdict NOT IN ('rate_limited', 'number_locked')   THEN false
        ELSE known.refused_at IS NULL OR known.refused_at NOT BETWEEN $2 - $7 + 1 AND $2 + $7 END AS says
      FROM (
        SELECT at, CASE
          WHEN known.mobile_number <> $1 OR known.otp_id IS NULL THEN 'not_found'
          WHEN known.locked_until > $2     THEN 'number_locked'
          WHEN known.used_at IS NOT NULL   THEN 'used'
          WHEN known.expires_at <= $2      THEN 'expired'
          WHEN known.attempts >= $10       THEN 'locked'
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
    CASE WHEN clock_millis() < $11 THEN clock_millis() ELSE give_up('OTP01') END,
    id
  FROM written WHERE on_record
),
counted AS (
  INSERT INTO meters AS meter (key, empty_at)
  SELECT wanted ->> 'key', clock_micros() + (wanted ->> 'share')::bigint
  FROM written, jsonb_array_elements($4 -> 'meters') AS wanted
  WHERE done OR $5 = 1
  -- In one order, or two requests might wait for each other.
  ORDER BY 1
  ON CONFLICT (key) DO UPDATE SET empty_at = (
    SELECT CASE WHEN meter.empty_at <= clock_micros() + (wanted ->> 'room')::bigint
                THEN greatest(meter.empty_at, clock_micros()) + (wanted ->> 'share')::bigint
                ELSE give_up('OTP02') END
    FROM jsonb_array_elements($4 -> 'meters') AS wanted WHERE wanted ->> 'key' = excluded.key)
)
SELECT last_verdict, to_json(sends)::text, locked_until, otp_id, version,
       CASE WHEN version = $9 THEN NULL ELSE sealed END, channel, created_at, expires_at, attempts, used_at
FROM written
