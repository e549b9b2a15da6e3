-- Ends a suspension early: the codes were verified after all.
-- ?1 application  ?2 prefix  ?3 now
DELETE FROM suspensions WHERE application = ?1 AND prefix = ?2 AND until > ?3
