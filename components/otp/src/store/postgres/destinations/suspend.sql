-- Suspends a range, unless somebody else has, and leaves the event.
-- $1 application  $2 prefix  $3 now  $4 until  $5 strikes  $6 event
WITH suspended AS (
  INSERT INTO suspensions AS known (application, prefix, since, until, strikes)
  VALUES ($1::text, $2::text, $3::bigint, $4::bigint, $5::bigint)
  ON CONFLICT (application, prefix) DO UPDATE SET
    since = excluded.since, until = excluded.until, strikes = excluded.strikes
  WHERE known.until <= $3
  RETURNING since
),
put AS (
  INSERT INTO outbox (event, created_at) SELECT $6::text::json, since FROM suspended
)
SELECT 1::bigint FROM suspended
