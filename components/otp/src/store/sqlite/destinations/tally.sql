-- What is known of ranges: since the given slot, and since their last suspension ended, if that was later.
-- ?1 JSON array of {"application", "prefix"}  ?2 first slot that counts
-- ?3 first slot whose codes may not have arrived yet  ?4 now  ?5 length of a slot, in milliseconds
SELECT wanted.application, wanted.prefix, coalesce(sum(sent), 0), coalesce(sum(sent) FILTER (WHERE slot < ?3), 0),
       coalesce(sum(verified), 0), until, strikes
FROM (SELECT value ->> '$.application' AS application, value ->> '$.prefix' AS prefix FROM json_each(?1)) AS wanted
LEFT JOIN suspensions USING (application, prefix)
LEFT JOIN destinations ON destinations.application = wanted.application AND destinations.prefix = wanted.prefix
  AND slot >= max(?2, CASE WHEN until <= ?4 THEN until / ?5 ELSE 0 END)
GROUP BY wanted.application, wanted.prefix
