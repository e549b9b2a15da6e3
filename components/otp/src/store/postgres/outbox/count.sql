-- How many events wait, claimed or not, and how many are dead.
SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM outbox_dead)
