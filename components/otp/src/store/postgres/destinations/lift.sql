-- Ends a suspension early: the codes were verified after all.
-- $1 application  $2 prefix  $3 now
DELETE FROM suspensions WHERE application = $1::text AND prefix = $2::text AND until > $3::bigint
