-- Counts a request that left nothing on record: a guess at an unknown number's code.
-- $1 what the statement had as $4
INSERT INTO meters AS meter (key, empty_at)
SELECT wanted ->> 'key', clock_micros() + (wanted ->> 'share')::bigint
FROM jsonb_array_elements($1::jsonb -> 'meters') AS wanted
ORDER BY 1
ON CONFLICT (key) DO UPDATE SET empty_at = (
  SELECT greatest(meter.empty_at, clock_micros()) + (wanted ->> 'share')::bigint
  FROM jsonb_array_elements($1 -> 'meters') AS wanted WHERE wanted ->> 'key' = excluded.key)
