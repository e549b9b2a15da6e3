-- Takes the steps of the schema that are missing (`schema.rs` writes them in), as one statement: all or none.
--
-- The lock is for everybody who would do the same; its number means nothing. Nobody waits for it, or for a table,
-- longer than a request does: who waits for a table keeps everybody out of it.
DO $block$
BEGIN
PERFORM set_config('lock_timeout', '2000', true);
PERFORM set_config('client_min_messages', 'warning', true);
PERFORM pg_advisory_xact_lock(7310593858020254320);
CREATE TABLE IF NOT EXISTS steps (step bigint PRIMARY KEY, taken_at timestamptz NOT NULL DEFAULT now());
-- steps
END
$block$
