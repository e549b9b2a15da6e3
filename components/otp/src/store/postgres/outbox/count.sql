-- How many events wait, claimed or not, how many are dead, and for how long the oldest has waited, in
-- milliseconds, by the clock that noted when it came.
SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox_dead),
       coalesce((SELECT greatest(0, clock_millis() - created_at) FROM outbox ORDER BY sequence LIMIT 1), 0)
