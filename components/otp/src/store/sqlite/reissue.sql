-- Writes a code for a known number in the place of any other, to the same channel and address, and puts it
-- on record. Or refuses it, as issue.sql does, and comes back without a row for the same reasons.
--
-- Where nobody shall be able to tell (?5), an unknown number stands for the decoy (migration 0033).
-- ?1 to ?8 as in issue.sql  ?9 otp id  ?10 sealed  ?11 check value  ?12 expires
-- ?13 moment from which it is too late
UPDATE users SET
  (last_verdict, otp_id, version, sealed, check_value, channel, created_at, expires_at, attempts, used_at,
   sends, refused_at, event_sequence, event, request) = (
  SELECT
    verdict,
    CASE WHEN done THEN ?9 ELSE otp_id END,
    CASE WHEN done THEN max(version + 1, ?2) ELSE version END,
    CASE WHEN done THEN ?10 ELSE sealed END,
    CASE WHEN done THEN ?11 ELSE check_value END,
    CASE WHEN done THEN coalesce(channel, 'sms') ELSE channel END,
    CASE WHEN done THEN ?2 ELSE created_at END,
    CASE WHEN done THEN ?12 ELSE expires_at END,
    CASE WHEN done THEN 0 ELSE attempts END,
    CASE WHEN done THEN NULL ELSE used_at END,
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
    SELECT verdict, at, verdict = 'done' AS done,
      verdict = 'done' OR ?5 OR refused_at IS NULL OR refused_at NOT BETWEEN ?2 - ?7 + 1 AND ?2 + ?7 AS says
    FROM (
      SELECT at, CASE
        WHEN mobile_number <> ?1 THEN 'not_found'
        WHEN locked_until > ?2   THEN 'number_locked'
        WHEN ?6 > 0 AND (SELECT count(*) FROM json_each(sends) WHERE value > at - ?7 AND value <= at) >= ?6
          THEN 'rate_limited'
        ELSE 'done' END AS verdict
      FROM (SELECT max(?2, coalesce((SELECT max(value) FROM json_each(sends) WHERE value <= ?2 + ?7), 0)) AS at)
    )
  )
)
WHERE id = coalesce((SELECT id FROM users WHERE mobile_number = ?1), CASE WHEN ?5 THEN 0 END)
  AND (julianday('now') - 2440587.5) * 86400000.0 < ?13
  AND NOT EXISTS (SELECT 1 FROM suspensions WHERE prefix = ?8 AND until > ?2)
  AND NOT EXISTS (SELECT 1 FROM idempotency WHERE id = ?4 ->> '$.idempotency.id' AND expires_at > ?2)
  AND NOT EXISTS (SELECT 1 FROM json_each(?4, '$.meters') AS wanted JOIN meters ON meters.key = wanted.value ->> '$.key'
                  WHERE empty_at > (julianday('now') - 2440587.5) * 86400000000.0 + (wanted.value ->> '$.room'))
RETURNING last_verdict, sends, locked_until, version, channel
