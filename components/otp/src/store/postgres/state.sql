-- How many steps of the schema were taken, and what the server's clock says, in milliseconds since the Unix epoch.
SELECT coalesce(max(step), 0)::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM steps
