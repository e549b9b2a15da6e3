-- The newest code of a number, and the sealed code itself unless that very version is cached. If the code
-- is live and may be given again, that is put on record: whoever is given it shall have it delivered. Or
-- refuses it, as reissue.sql does, and comes back without a row for the same reasons.
-- ?1 to ?8 as in issue.sql  ?9 version that is cached, or null  ?10 attempts allowed
-- ?11 moment from which it is too late
UPDATE users SET (last_verdict, sends, refused_at, event_sequence, event, request) = (
  SELECT
    verdict,
    CASE
      WHEN NOT done THEN sends
      WHEN ?6 > 0   THEN (SELECT json_group_array(value) FROM (
        SELECT value FROM json_each(sends) WHERE value > at - ?7 AND value <= at UNION ALL SELECT at))
      ELSE '[]' END,
    CASE WHEN says AND NOT done THEN ?2 ELSE refused_at END,
    CASE WHEN says THEN max(event_sequence + 1, ?2) ELSE event_sequence END,
    CASE
      WHEN done THEN ?3
      WHEN says THEN json_set(?3, '$.type', 'otp.limited.v1', '$.data.reason', verdict)
      ELSE event END,
    CASE WHEN done OR ?5 THEN ?4 END
  FROM (
    SELECT verdict, at, verdict = 'done' AS done, CASE
      WHEN verdict = 'done' OR ?5                             THEN 1
      WHEN verdict NOT IN ('rate_limited', 'number_locked')   THEN 0
      ELSE refused_at IS NULL OR refused_at NOT BETWEEN ?2 - ?7 + 1 AND ?2 + ?7 END AS says
    FROM (
      SELECT at, CASE
        WHEN mobile_number <> ?1 OR otp_id IS NULL THEN 'not_found'
        WHEN locked_until > ?2     THEN 'number_locked'
        WHEN used_at IS NOT NULL   THEN 'used'
        WHEN expires_at <= ?2      THEN 'expired'
        WHEN attempts >= ?10       THEN 'locked'
        WHEN ?6 > 0 AND (SELECT count(*) FROM json_each(sends) WHERE value > at - ?7 AND value <= at) >= ?6
          THEN 'rate_limited'
        ELSE 'done' END AS verdict
      FROM (SELECT max(?2, coalesce((SELECT max(value) FROM json_each(sends) WHERE value <= ?2 + ?7), 0)) AS at)
    )
  )
)
WHERE id = coalesce((SELECT id FROM users WHERE mobile_number = ?1), CASE WHEN ?5 THEN 0 END)
  AND (julianday('now') - 2440587.5) * 86400000.0 < ?11
  AND NOT EXISTS (SELECT 1 FROM suspensions WHERE prefix = ?8 AND until > ?2)
  AND NOT EXISTS (SELECT 1 FROM json_each(?4, '$.meters') AS wanted JOIN meters ON meters.key = wanted.value ->> '$.key'
                  WHERE empty_at > (julianday('now') - 2440587.5) * 86400000000.0 + (wanted.value ->> '$.room'))
RETURNING last_verdict, sends, locked_until, otp_id, version, CASE WHEN version = ?9 THEN NULL ELSE sealed END,
          channel, created_at, expires_at, attempts, used_at
