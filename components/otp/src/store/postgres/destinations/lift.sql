-- Ends a suspension early: the codes were verified after all.
-- $1 prefix  $2 now
DELETE FROM suspensions WHERE prefix = $1::text AND until > $2::bigint
