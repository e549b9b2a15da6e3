-- 0024 and 0025 take the place of 0008 and 0009.
DROP TRIGGER event_of_a_new_user
