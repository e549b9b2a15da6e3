-- Writes a code for a known number in the place of any other, to the same channel and address,
-- and leaves the event.
-- Too late, it does nothing: see issue.sql.
-- ?1 number  ?2 otp id  ?3 sealed  ?4 check value  ?5 created  ?6 expires  ?7 event
UPDATE users SET
  otp_id       = ?2,
  version      = max(version + 1, ?5),
  sealed       = ?3,
  check_value  = ?4,
  channel      = coalesce(channel, 'sms'),
  created_at   = ?5,
  expires_at   = ?6,
  attempts     = 0,
  used_at      = NULL,
  last_verdict = NULL,
  event_sequence = max(event_sequence + 1, ?5),
  event          = ?7
WHERE mobile_number = ?1 AND (julianday('now') - 2440587.5) * 86400000.0 < ?5 + 2600
RETURNING version, channel
