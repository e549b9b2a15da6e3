-- As commit.sql, of an account that should not be there yet. If all is as it was then, 1 comes back; if not, 0 with what is
-- known by now, as load.sql has it.
-- $1 to $22 the account  $23 expected  $24 late  $25 event  $26 whose  $27 range  $28 to $34 the answer  $35 meters
-- $36 decoy  $37 application  $38 keys of meters, as a JSON array, or null
SELECT done::int::bigint, known.*
FROM (SELECT commit_record(
  ROW($1::text, $2::text, $3::text, $4::bigint, $5::text, $6::bigint, $7::text, $8::text, $9::bigint, $10::bigint,
      $11::bigint, $12::text, $13::text, $14::bigint, $15::bytea, $16::bytea, $17::text, $18::text, $19::bigint,
      $20::bigint, $21::bigint, $22::bigint)::account_as_decided,
  $23::bigint, $24::bigint, $25::text, $26::text, $27::text,
  ROW($28::text, $29::text, $30::text, $31::text, $32::bigint, $33::bigint, $34::bigint)::answer_as_given,
  $35::jsonb) AS done OFFSET 0) AS committed
LEFT JOIN LATERAL known_record(done, $26, $36::text, $37::text, $27, $28, $38::jsonb) AS known ON true
