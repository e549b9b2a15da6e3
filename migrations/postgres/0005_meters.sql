-- How far the limits of clients, API keys and of everybody together are used up, where no cache counts.
--
-- One number a meter (the generic cell rate algorithm, ITU-T I.371): the moment at which it would be empty
-- again. Each request puts that moment off by its share of the window.
CREATE TABLE meters (
  -- Which limit, and of whom. An address is in it as a keyed hash only.
  key      text   PRIMARY KEY,
  -- Microseconds since the Unix epoch.
  empty_at bigint NOT NULL
)
WITH (fillfactor = 70)
