-- Writes a code in the place of any other, creates or updates its user, and puts it on record (the triggers
-- on users: event, answer for a retry, meters). Or refuses it, for the number's sake; `last_verdict` says which.
--
-- No row comes back if something else is in the way: a retry that was answered, a suspended range, a meter
-- that is full (`obstacle.sql` and `replay.sql` tell which). Nor if the statement waited for its turn
-- longer than its request: it would replace the code that a retry has been given since.
--
-- A new number's version is the moment at which the statement has its turn, if that is later, and later than what
-- was erased: an erasure that was quicker shall not take this code for one of its time.
--
-- Meters go by the moment at which the statement has its turn: it may have waited longer than their windows are.
--
-- The limit: `at` is this moment, or that of the last send if a clock elsewhere is ahead, so the moments
-- never go back; a code is sent if fewer than the limit were sent in (at - window, at]. Then no window of
-- that length ever has more. A moment that lies further ahead than a window was written by a wrong clock,
-- and does not count.
-- ?1 number  ?2 now  ?3 event of the code, if it is issued  ?4 what else is left on record, JSON or null
-- ?5 1 if nobody shall be able to tell a refusal: each is put on record as if it were none; if not, only the
--    first of a window is
-- ?6 sends allowed in a window, or 0 for any number  ?7 the window, in milliseconds
-- ?8 range of the number, or null if it need not be looked at
-- ?9 otp id  ?10 sealed  ?11 check value  ?12 expires
-- ?13 channel  ?14 address that the code goes to, if by mail  ?15 address that the request told
-- ?16 moment from which it is too late
INSERT INTO users (mobile_number, otp_id, version, sealed, check_value, channel, address, created_at,
                   expires_at, email, last_verdict, sends, event_sequence, event, request)
SELECT ?1, ?9, max(?2, CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER), up_to + 1), ?10, ?11, ?13,
       ?14, ?2, ?12, ?15, 'done',
       CASE WHEN ?6 > 0 THEN json_array(?2) ELSE '[]' END, max(?2, up_to + 1), ?3, ?4
FROM forgotten
WHERE (julianday('now') - 2440587.5) * 86400000.0 < ?16
  AND NOT EXISTS (SELECT 1 FROM suspensions WHERE prefix = ?8 AND until > ?2)
  AND NOT EXISTS (SELECT 1 FROM idempotency WHERE id = ?4 ->> '$.idempotency.id' AND expires_at > ?2)
  AND NOT EXISTS (SELECT 1 FROM json_each(?4, '$.meters') AS wanted JOIN meters ON meters.key = wanted.value ->> '$.key'
                  WHERE empty_at > (julianday('now') - 2440587.5) * 86400000000.0 + (wanted.value ->> '$.room'))
ON CONFLICT (mobile_number) DO UPDATE SET
  (last_verdict, otp_id, version, sealed, check_value, channel, address, created_at, expires_at, attempts,
   used_at, email, pending_email, sends, refused_at, event_sequence, event, request) = (
  SELECT
    verdict,
    CASE WHEN done THEN excluded.otp_id ELSE otp_id END,
    CASE WHEN done THEN max(version + 1, ?2) ELSE version END,
    CASE WHEN done THEN excluded.sealed ELSE sealed END,
    CASE WHEN done THEN excluded.check_value ELSE check_value END,
    CASE WHEN done THEN excluded.channel ELSE channel END,
    CASE WHEN done THEN excluded.address ELSE address END,
    CASE WHEN done THEN ?2 ELSE created_at END,
    CASE WHEN done THEN ?12 ELSE expires_at END,
    CASE WHEN done THEN 0 ELSE attempts END,
    CASE WHEN done THEN NULL ELSE used_at END,
    CASE WHEN done AND ?15 IS NOT NULL AND email_verified_at IS NULL THEN ?15 ELSE email END,
    -- A verified address stays until a code that was sent to the new one has been verified.
    CASE
      WHEN NOT done OR ?15 IS NULL                    THEN pending_email
      WHEN email_verified_at IS NULL OR ?15 = email   THEN NULL
      ELSE ?15 END,
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
        WHEN locked_until > ?2 THEN 'number_locked'
        WHEN ?6 > 0 AND (SELECT count(*) FROM json_each(sends) WHERE value > at - ?7 AND value <= at) >= ?6
          THEN 'rate_limited'
        ELSE 'done' END AS verdict
      FROM (SELECT max(?2, coalesce((SELECT max(value) FROM json_each(sends) WHERE value <= ?2 + ?7), 0)) AS at)
    )
  )
)
RETURNING last_verdict, sends, locked_until, version
