-- The newest code of a number, and the sealed code itself unless that very version is cached. If the code
-- is live, the event is left, too: whoever is given it shall have it delivered.
-- Too late, it does nothing: see issue.sql.
-- ?1 number  ?2 version that is cached, or null  ?3 now  ?4 attempts allowed  ?5 event
UPDATE users SET (event_sequence, event) = (
  SELECT CASE WHEN live THEN max(event_sequence + 1, ?3) ELSE event_sequence END,
         CASE WHEN live THEN ?5 ELSE event END
  FROM (SELECT used_at IS NULL AND expires_at > ?3 AND attempts < ?4 AS live)
)
WHERE mobile_number = ?1 AND otp_id IS NOT NULL
  AND (julianday('now') - 2440587.5) * 86400000.0 < ?3 + 2600
RETURNING otp_id, version, CASE WHEN version = ?2 THEN NULL ELSE sealed END, channel,
          created_at, expires_at, attempts, used_at
