-- What was answered to a request with this Idempotency-Key, and whether its code is still live.
-- $1 hash of caller, route and key  $2 now  $3 attempts allowed
SELECT idempotency.request, coalesce(idempotency.otp_id, ''), idempotency.sealed,
       coalesce(idempotency.channel, 'sms'), coalesce(idempotency.created_at, 0), coalesce(code_expires_at, 0),
       coalesce(users.otp_id = idempotency.otp_id AND used_at IS NULL AND users.expires_at > $2::bigint
                AND attempts < $3::bigint AND coalesce(locked_until, 0) <= $2, false)::int::bigint
FROM idempotency LEFT JOIN users ON users.id = user_id
WHERE idempotency.id = $1::text AND idempotency.expires_at > $2
