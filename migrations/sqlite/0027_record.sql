-- What a statement leaves beside row and event: the answer for a retry, the meters.
CREATE TRIGGER record INSTEAD OF INSERT ON records
BEGIN
  -- Not OR REPLACE: what the statement outside says of conflicts would hold here, too (an upsert: fail).
  INSERT INTO idempotency (id, request, user_id, otp_id, sealed, channel, created_at, code_expires_at, expires_at)
  SELECT request ->> '$.idempotency.id', request ->> '$.idempotency.request', id,
         -- Of a refusal that was answered as if it were none, there is no code.
         CASE last_verdict WHEN 'done' THEN otp_id END, CASE last_verdict WHEN 'done' THEN sealed END,
         CASE last_verdict WHEN 'done' THEN channel END, CASE last_verdict WHEN 'done' THEN created_at END,
         CASE last_verdict WHEN 'done' THEN expires_at END, request ->> '$.idempotency.expiresAt'
  FROM users WHERE id = NEW.user_id AND request ->> '$.idempotency.id' IS NOT NULL
  -- One that has had its day may still be there.
  ON CONFLICT (id) DO UPDATE SET
    request = excluded.request, user_id = excluded.user_id, otp_id = excluded.otp_id, sealed = excluded.sealed,
    channel = excluded.channel, created_at = excluded.created_at, code_expires_at = excluded.code_expires_at,
    expires_at = excluded.expires_at;

  INSERT INTO meters (key, empty_at)
  SELECT meter.value ->> '$.key',
         max(coalesce(known.empty_at, 0), CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)) + (meter.value ->> '$.share')
  FROM users, json_each(users.request, '$.meters') AS meter
  LEFT JOIN meters AS known ON known.key = meter.value ->> '$.key'
  WHERE users.id = NEW.user_id
  ON CONFLICT (key) DO UPDATE SET empty_at = excluded.empty_at;
END
