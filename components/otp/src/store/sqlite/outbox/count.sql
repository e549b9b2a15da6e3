-- How many events wait, claimed or not, how many are dead, and for how long the oldest has waited, in
-- milliseconds.
SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox_dead),
       coalesce((SELECT max(0, millis - created_at) FROM outbox, clock ORDER BY sequence LIMIT 1), 0)
