-- Counts a request that left nothing on record: a guess at an unknown number's code. On all of its meters, or on
-- none: no row comes back if one has become full since.
-- ?1 what the statement had as ?4
INSERT INTO meters (key, empty_at)
SELECT meter.value ->> '$.key',
       max(coalesce(known.empty_at, 0), CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)) + (meter.value ->> '$.share')
FROM json_each(?1, '$.meters') AS meter
LEFT JOIN meters AS known ON known.key = meter.value ->> '$.key'
WHERE NOT EXISTS (SELECT 1 FROM json_each(?1, '$.meters') AS wanted JOIN meters ON meters.key = wanted.value ->> '$.key'
                  WHERE empty_at > (julianday('now') - 2440587.5) * 86400000000.0 + (wanted.value ->> '$.room'))
ON CONFLICT (key) DO UPDATE SET empty_at = excluded.empty_at
RETURNING 1
