-- Erases an account, if it is as it was when that was decided: a row comes back (migrations/postgres).
-- $1 subject  $2 expected revision, 0 for none  $3 floor of all that comes after  $4 late  $5 event
SELECT 1::bigint WHERE erase_record($1::text, $2::bigint, $3::bigint, $4::bigint, $5::text)
