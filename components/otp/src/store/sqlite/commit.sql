-- Writes down what was decided, if all is as it was then: a row comes back. Or nothing, and none does. The trigger on
-- the view does it (migrations/sqlite).
-- ?1 to ?22 the account  ?23 expected  ?24 late  ?25 event  ?26 whose  ?27 range  ?28 to ?34 the answer  ?35 meters
INSERT INTO commits (
  subject, application, recipient, revision, email, email_verified_at, pending_email, sends, refused_at, failures,
  locked_until, check_refused, otp_id, version, sealed, check_value, channel, address, created_at, expires_at, attempts,
  used_at, expected, late, event, event_subject, prefix, answer, request, answer_otp_id, answer_channel,
  answer_created_at, answer_code_expires_at, answer_expires_at, meters)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
        ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35)
RETURNING 1
