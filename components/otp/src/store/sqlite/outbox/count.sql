-- How many events wait, claimed or not, how many are dead, and for how long the oldest has waited, in
-- milliseconds.
SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox_dead),
       coalesce((SELECT max(0, CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER) - created_at)
                 FROM outbox ORDER BY sequence LIMIT 1), 0)
