-- Suspends a range, unless somebody else has, and leaves the event.
-- $1 prefix  $2 now  $3 until  $4 strikes  $5 event
WITH suspended AS (
  INSERT INTO suspensions AS known (prefix, since, until, strikes)
  VALUES ($1::text, $2::bigint, $3::bigint, $4::bigint)
  ON CONFLICT (prefix) DO UPDATE SET since = excluded.since, until = excluded.until, strikes = excluded.strikes
  WHERE known.until <= $2
  RETURNING since
),
put AS (
  INSERT INTO outbox (event, created_at) SELECT $5::jsonb, since FROM suspended
)
SELECT 1::bigint FROM suspended
