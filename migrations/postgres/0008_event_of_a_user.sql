-- An event of a user, whole: what its request knew, and what only the row knows. Whatever is null is left out. The
-- code goes out sealed as it is, and only where it is to be delivered.
CREATE FUNCTION event_of_a_user(
  event jsonb, event_sequence bigint, channel text, address text, otp_id text, version bigint, sealed bytea,
  created_at bigint, expires_at bigint
) RETURNS jsonb LANGUAGE sql STABLE AS $event$
SELECT jsonb_strip_nulls(event || jsonb_build_object(
  'sequence', lpad(event_sequence::text, 20, '0'),
  'data', event -> 'data' || jsonb_build_object(
    'channel',   channel,
    'email',     address,
    'otpId',     otp_id,
    'version',   version,
    'sealedOtp', CASE WHEN event ->> 'type' IN ('otp.generated.v1', 'otp.resent.v1', 'otp.regenerated.v1')
                 THEN encode(sealed, 'hex') END,
    'createdAt', to_char(to_timestamp(created_at / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'expiresAt', to_char(to_timestamp(expires_at / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))))
$event$
