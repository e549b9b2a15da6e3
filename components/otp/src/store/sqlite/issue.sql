-- Writes a code in the place of any other, creates or updates its user, and leaves the event (the triggers
-- on users put it into the outbox).
--
-- A statement that waited for its turn longer than its request does nothing (2.6 s: the request's
-- deadline and a little): it would replace the code that a retry has been given since.
-- ?1 number  ?2 otp id  ?3 sealed  ?4 check value  ?5 created  ?6 expires  ?7 channel
-- ?8 address that the code goes to, if by mail  ?9 address that the request told  ?10 event
INSERT INTO users (mobile_number, otp_id, version, sealed, check_value, channel, address,
                   created_at, expires_at, email, event_sequence, event)
SELECT ?1, ?2, ?5, ?3, ?4, ?7, ?8, ?5, ?6, ?9, ?5, ?10
WHERE (julianday('now') - 2440587.5) * 86400000.0 < ?5 + 2600
ON CONFLICT (mobile_number) DO UPDATE SET
  otp_id       = excluded.otp_id,
  version      = max(version + 1, excluded.version),
  sealed       = excluded.sealed,
  check_value  = excluded.check_value,
  channel      = excluded.channel,
  address      = excluded.address,
  created_at   = excluded.created_at,
  expires_at   = excluded.expires_at,
  attempts     = 0,
  used_at      = NULL,
  last_verdict = NULL,
  event_sequence = max(event_sequence + 1, excluded.event_sequence),
  event          = excluded.event,
  -- A verified address stays until a code that was sent to the new one has been verified.
  pending_email = CASE
    WHEN excluded.email IS NULL THEN pending_email
    WHEN email_verified_at IS NULL OR excluded.email = email THEN NULL
    ELSE excluded.email END,
  email = CASE
    WHEN excluded.email IS NOT NULL AND email_verified_at IS NULL THEN excluded.email
    ELSE email END
RETURNING version
