-- What is known of ranges: since the given slot, and since their last suspension ended, if that was later.
--
-- Each range is looked up by itself: joined, the server would read what is known of all others, too.
-- $1 JSON array of {"application", "prefix"}  $2 first slot that counts
-- $3 first slot whose codes may not have arrived yet  $4 now  $5 length of a slot, in milliseconds
SELECT wanted.application, wanted.prefix, counted.sent, counted.settled, counted.verified, until, strikes
FROM jsonb_to_recordset($1::jsonb) AS wanted (application text, prefix text)
LEFT JOIN suspensions USING (application, prefix)
CROSS JOIN LATERAL (
  SELECT coalesce(sum(sent), 0)::bigint AS sent, coalesce(sum(sent) FILTER (WHERE slot < $3::bigint), 0)::bigint AS settled,
         coalesce(sum(verified), 0)::bigint AS verified
  FROM destinations
  WHERE destinations.application = wanted.application AND destinations.prefix = wanted.prefix
    AND slot >= greatest($2::bigint, CASE WHEN until <= $4::bigint THEN until / $5::bigint ELSE 0 END)
) AS counted
