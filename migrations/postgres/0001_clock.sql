-- The server's clock at this very moment, and not when the statement began: it may have waited since. In milliseconds
-- and microseconds since the Unix epoch.
CREATE FUNCTION clock_millis() RETURNS bigint LANGUAGE sql VOLATILE AS
  'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint';
CREATE FUNCTION clock_micros() RETURNS bigint LANGUAGE sql VOLATILE AS
  'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint'
