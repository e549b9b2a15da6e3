-- What is known of an account, and of what a request about it depends on, at this moment.
-- ?1 subject  ?2 decoy that is read where there is no such account, or null  ?3 id of an answer that may be kept, or null
-- ?4 application  ?5 range that may be suspended, or null  ?6 keys of meters, as a JSON array, or null
SELECT up_to,
  (SELECT until - millis FROM suspensions WHERE application = ?4 AND prefix = ?5 AND until > millis),
  (SELECT nullif(json_group_array(coalesce(empty_at - micros, 0)), '[]')
   FROM (SELECT empty_at FROM json_each(?6) AS wanted LEFT JOIN meters ON meters.key = wanted.value ORDER BY wanted.key)),
  kept.request, kept.otp_id, kept.channel, kept.created_at, kept.code_expires_at,
  account.*
FROM forgotten CROSS JOIN clock
LEFT JOIN accounts AS account ON account.subject = coalesce((SELECT subject FROM accounts WHERE subject = ?1), ?2)
LEFT JOIN idempotency AS kept ON kept.id = ?3 AND kept.expires_at > millis
