-- 0040 takes the place of 0032.
DROP TRIGGER erasure
