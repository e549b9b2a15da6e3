-- Judges a guess, writes down what follows from it, puts it on record, and returns the judgement.
--
-- The inner query sees the row as it was, once, and everything follows from its one verdict: no two
-- guesses can both be the winning one, and a guess past the limit is never compared.
-- (Not UPDATE … FROM: that makes a temporary table each time, and takes twice as long.)
-- Too late, it does nothing: see issue.sql. No row comes back for a full meter, either.
-- ?1 number  ?2 now  ?3 event of a right guess; another one has another type, and a reason
-- ?4 what else is left on record, JSON or null
-- ?5 1 if nobody shall be able to tell an unknown number: it stands for the decoy then (migration 0033)
-- ?6 wrong guesses in a row, of all codes of the number, at which the number is locked
-- ?7 for how long, in milliseconds
-- ?8 otp id that will do, or null  ?9 check value of the guess  ?10 attempts allowed
-- ?11 moment from which it is too late
UPDATE users SET (last_verdict, attempts, used_at, consecutive_failures, locked_until, email_verified_at,
                  email, pending_email, event_sequence, event, request) = (
  SELECT
    verdict,
    attempts + (verdict = 'wrong'),
    CASE verdict WHEN 'right' THEN ?2 ELSE used_at END,
    -- After a lock they are counted anew.
    CASE
      WHEN verdict = 'right' OR locks THEN 0
      WHEN verdict = 'wrong'          THEN consecutive_failures + 1
      ELSE consecutive_failures END,
    CASE WHEN locks THEN ?2 + ?7 ELSE locked_until END,
    -- A code that came by mail proves the address that it went to.
    CASE
      WHEN proved = pending_email THEN ?2
      WHEN proved = email         THEN coalesce(email_verified_at, ?2)
      ELSE email_verified_at END,
    CASE WHEN proved = pending_email THEN pending_email ELSE email END,
    CASE WHEN proved = pending_email THEN NULL ELSE pending_email END,
    CASE WHEN verdict = 'not_found' AND NOT ?5 THEN event_sequence ELSE max(event_sequence + 1, ?2) END,
    CASE
      WHEN verdict = 'not_found' AND NOT ?5 THEN event
      WHEN verdict = 'right'                THEN ?3
      ELSE json_set(?3,
        '$.type', CASE WHEN locks OR verdict = 'wrong' AND attempts + 1 >= ?10
                       THEN 'otp.locked.v1' ELSE 'otp.verification-failed.v1' END,
        '$.data.reason', CASE WHEN locks THEN 'number_locked' ELSE verdict END) END,
    ?4
  FROM (
    SELECT verdict, CASE verdict WHEN 'right' THEN address END AS proved,
           verdict = 'wrong' AND consecutive_failures + 1 >= ?6 AS locks
    FROM (
      SELECT CASE
        WHEN mobile_number <> ?1                              THEN 'not_found'
        WHEN locked_until > ?2                                THEN 'number_locked'
        WHEN otp_id IS NULL OR otp_id <> coalesce(?8, otp_id) THEN 'not_found'
        WHEN used_at IS NOT NULL                              THEN 'used'
        WHEN expires_at <= ?2                                 THEN 'expired'
        WHEN attempts >= ?10                                  THEN 'locked'
        WHEN check_value = ?9                                 THEN 'right'
        ELSE 'wrong' END AS verdict
    )
  )
)
WHERE id = coalesce((SELECT id FROM users WHERE mobile_number = ?1), CASE WHEN ?5 THEN 0 END)
  AND (julianday('now') - 2440587.5) * 86400000.0 < ?11
  AND NOT EXISTS (SELECT 1 FROM json_each(?4, '$.meters') AS wanted JOIN meters ON meters.key = wanted.value ->> '$.key'
                  WHERE empty_at > (julianday('now') - 2440587.5) * 86400000000.0 + (wanted.value ->> '$.room'))
RETURNING last_verdict, locked_until, attempts, otp_id, version, channel
