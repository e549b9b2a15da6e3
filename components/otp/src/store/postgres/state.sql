-- How many steps of the schema were taken, what the server's clock says, in milliseconds since the Unix epoch, and
-- whether they were steps of ours: 1 or 0.
SELECT coalesce(max(step), 0)::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
       count(to_regclass('accounts'))::bigint
FROM steps
