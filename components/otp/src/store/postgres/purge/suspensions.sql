-- Drops suspensions that ended so long ago that the next one would not be longer for them.
-- $1 moment before which they ended
DELETE FROM suspensions WHERE until < $1::bigint
