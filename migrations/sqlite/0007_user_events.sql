-- The last event of each user, whole: what its request knew, and what only the row knows. Whatever is
-- null is left out (RFC 7396). The code goes out sealed as it is, and only where it is to be delivered.
CREATE VIEW user_events AS
SELECT
  id,
  json_patch(event, json_object(
    'sequence', printf('%020d', event_sequence),
    'data', json_object(
      'channel',   channel,
      'email',     address,
      'otpId',     otp_id,
      'version',   version,
      'sealedOtp', CASE
        WHEN event ->> '$.type' IN ('otp.generated.v1', 'otp.resent.v1', 'otp.regenerated.v1')
        THEN lower(hex(sealed)) END,
      'createdAt', strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch'),
      'expiresAt', strftime('%Y-%m-%dT%H:%M:%fZ', expires_at / 1000.0, 'unixepoch')))) AS event
FROM users
