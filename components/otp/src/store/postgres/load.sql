-- What is known of an account, and of what a request about it depends on, at this moment.
-- $1 subject  $2 decoy that is read where there is no such account, or null  $3 id of an answer that may be kept, or null
-- $4 application  $5 range that may be suspended, or null  $6 keys of meters, as a JSON array, or null
SELECT up_to,
  (SELECT until - clock_millis() FROM suspensions
   WHERE application = $4::text AND prefix = $5::text AND until > clock_millis()),
  (SELECT coalesce(json_agg(coalesce(empty_at - clock_micros(), 0) ORDER BY place), '[]')::text
   FROM jsonb_array_elements_text($6::jsonb) WITH ORDINALITY AS wanted (key, place) LEFT JOIN meters USING (key)),
  kept.request, kept.otp_id, kept.channel, kept.created_at, kept.code_expires_at,
  account.*
FROM forgotten
LEFT JOIN accounts AS account ON account.subject = coalesce((SELECT subject FROM accounts WHERE subject = $1::text), $2::text)
LEFT JOIN idempotency AS kept ON kept.id = $3::text AND kept.expires_at > clock_millis()
