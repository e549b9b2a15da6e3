-- What is known of ranges: since the given slot, and since their last suspension ended, if that was later.
-- ?1 JSON array of prefixes  ?2 first slot that counts  ?3 first slot whose codes may not have arrived yet
-- ?4 now  ?5 length of a slot, in milliseconds
SELECT wanted.value, coalesce(sum(sent), 0), coalesce(sum(sent) FILTER (WHERE slot < ?3), 0),
       coalesce(sum(verified), 0), until, strikes
FROM json_each(?1) AS wanted
LEFT JOIN suspensions ON suspensions.prefix = wanted.value
LEFT JOIN destinations ON destinations.prefix = wanted.value
  AND slot >= max(?2, CASE WHEN until <= ?4 THEN until / ?5 ELSE 0 END)
GROUP BY wanted.value
