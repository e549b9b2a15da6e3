-- Counts a request that left nothing on record: a guess at an unknown number's code. On all of its meters, or on
-- none: it gives up (issue.sql), and no row comes back, if one has become full since.
-- $1 what the statement had as $4
INSERT INTO meters AS meter (key, empty_at)
SELECT wanted ->> 'key', clock_micros() + (wanted ->> 'share')::bigint
FROM jsonb_array_elements($1::jsonb -> 'meters') AS wanted
ORDER BY 1
ON CONFLICT (key) DO UPDATE SET empty_at = (
  SELECT CASE WHEN meter.empty_at <= clock_micros() + (wanted ->> 'room')::bigint
              THEN greatest(meter.empty_at, clock_micros()) + (wanted ->> 'share')::bigint
              ELSE give_up('OTP02') END
  FROM jsonb_array_elements($1 -> 'meters') AS wanted WHERE wanted ->> 'key' = excluded.key)
RETURNING 1::bigint
