-- What is known of an account, and of what a request about it depends on (migrations/postgres).
-- $1 subject  $2 decoy that is read where there is no such account, or null  $3 id of an answer that may be kept, or null
-- $4 application  $5 range that may be suspended, or null  $6 keys of meters, as a JSON array, or null
SELECT * FROM known_record(false, $1::text, $2::text, $4::text, $5::text, $3::text, $6::jsonb)
