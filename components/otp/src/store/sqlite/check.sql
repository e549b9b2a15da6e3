-- Judges a guess, writes down what follows from it, leaves the event, and returns the judgement.
--
-- The inner query sees the row as it was, once, and everything follows from its one verdict: no two
-- guesses can both be the winning one, and a guess past the limit is never compared.
-- (Not UPDATE … FROM: that makes a temporary table each time, and takes twice as long.)
-- Too late, it does nothing: see issue.sql.
-- ?1 number  ?2 otp id that will do, or null  ?3 check value of the guess  ?4 now  ?5 attempts allowed
-- ?6 event of a right guess; another one has another type, and a reason
UPDATE users SET (last_verdict, attempts, used_at, email_verified_at, email, pending_email,
                  event_sequence, event) = (
  SELECT
    verdict,
    attempts + (verdict = 'wrong'),
    CASE verdict WHEN 'right' THEN ?4 ELSE used_at END,
    -- A code that came by mail proves the address that it went to.
    CASE
      WHEN proved = pending_email THEN ?4
      WHEN proved = email         THEN coalesce(email_verified_at, ?4)
      ELSE email_verified_at END,
    CASE WHEN proved = pending_email THEN pending_email ELSE email END,
    CASE WHEN proved = pending_email THEN NULL ELSE pending_email END,
    CASE verdict WHEN 'not_found' THEN event_sequence ELSE max(event_sequence + 1, ?4) END,
    CASE verdict
      WHEN 'not_found' THEN event
      WHEN 'right'     THEN ?6
      ELSE json_set(?6,
        '$.type', CASE WHEN verdict = 'wrong' AND attempts + 1 >= ?5
                       THEN 'otp.locked.v1' ELSE 'otp.verification-failed.v1' END,
        '$.data.reason', verdict) END
  FROM (
    SELECT verdict, CASE verdict WHEN 'right' THEN address END AS proved
    FROM (
      SELECT CASE
        WHEN otp_id IS NULL OR otp_id <> coalesce(?2, otp_id) THEN 'not_found'
        WHEN used_at IS NOT NULL                              THEN 'used'
        WHEN expires_at <= ?4                                 THEN 'expired'
        WHEN attempts >= ?5                                   THEN 'locked'
        WHEN check_value = ?3                                 THEN 'right'
        ELSE 'wrong' END AS verdict
    )
  )
)
WHERE mobile_number = ?1 AND (julianday('now') - 2440587.5) * 86400000.0 < ?4 + 2600
RETURNING last_verdict, attempts, otp_id, version, channel
