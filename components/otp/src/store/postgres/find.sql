-- The newest code of a number, with the sealed code itself.
-- $1 number
SELECT otp_id, version, sealed, channel, created_at, expires_at, attempts, used_at
FROM users
WHERE mobile_number = $1::text AND otp_id IS NOT NULL
