-- What was in the way of a statement that gave no row back, each with the moment at which it is gone: the
-- suspension of the range, in milliseconds, or a full meter, in microseconds. The order is that of the answer.
-- It goes by the moment at which the request began, which is no later than that of the statement: what was full
-- then is full here.
-- $1 now  $2 range of the number, or null  $3 what the statement had as $4
SELECT 'suspended', until FROM suspensions WHERE prefix = $2::text AND until > $1::bigint
UNION ALL
SELECT wanted ->> 'name', empty_at - (wanted ->> 'room')::bigint
FROM jsonb_array_elements($3::jsonb -> 'meters') AS wanted JOIN meters ON key = wanted ->> 'key'
WHERE empty_at > (wanted ->> 'now')::bigint + (wanted ->> 'room')::bigint
