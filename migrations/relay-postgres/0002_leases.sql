-- Several relays: who is alive, and who reads which partition.

-- A relay says every second that it is alive. One that has not said so in time has nothing any more: its
-- partitions and the deliveries that it had in hand are anybody's. So the time of all its leases stands
-- here, once, and to renew them all is to write one row.
CREATE TABLE relay.members (
  -- Another one for each start of a relay.
  id          TEXT        PRIMARY KEY,
  -- The topic that it reads; null while it can read none.
  topic       TEXT,
  alive_until TIMESTAMPTZ NOT NULL
);

-- While the server was away nobody could say anything, which is held against nobody.
CREATE VIEW relay.alive AS
  SELECT id, topic FROM relay.members
  WHERE greatest(alive_until, pg_postmaster_start_time() + interval '6 seconds') > clock_timestamp();

-- A partition and who reads it.
CREATE TABLE relay.leases (
  topic     TEXT    NOT NULL,
  partition INTEGER NOT NULL,
  owner     TEXT,
  -- Grows with every owner. What is read is written down only if it was read by the newest: the owner before,
  -- who was paused and does not know yet, writes nothing.
  epoch     BIGINT  NOT NULL DEFAULT 0,
  PRIMARY KEY (topic, partition)
);
