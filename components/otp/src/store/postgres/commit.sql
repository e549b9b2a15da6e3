-- Writes down what was decided, if all is as it was then: a row comes back. Or nothing, and none does. The function does
-- it (migrations/postgres).
-- $1 to $22 the account  $23 expected  $24 late  $25 event  $26 whose  $27 range  $28 to $34 the answer  $35 meters
SELECT 1::bigint
WHERE commit_record(
  ROW($1::text, $2::text, $3::text, $4::bigint, $5::text, $6::bigint, $7::text, $8::text, $9::bigint, $10::bigint,
      $11::bigint, $12::text, $13::text, $14::bigint, $15::bytea, $16::bytea, $17::text, $18::text, $19::bigint,
      $20::bigint, $21::bigint, $22::bigint)::account_as_decided,
  $23::bigint, $24::bigint, $25::text, $26::text, $27::text,
  ROW($28::text, $29::text, $30::text, $31::text, $32::bigint, $33::bigint, $34::bigint)::answer_as_given,
  $35::jsonb)
