-- The newest code of a number, and the sealed code itself unless that very version is cached.
-- ?1 number  ?2 version that is cached, or null
SELECT otp_id, version, CASE WHEN version = ?2 THEN NULL ELSE sealed END, channel,
       created_at, expires_at, attempts, used_at
FROM users
WHERE mobile_number = ?1 AND otp_id IS NOT NULL
