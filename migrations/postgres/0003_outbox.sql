-- Events that wait to be published. A row is claimed for a moment, pushed, and deleted when accepted.
CREATE TABLE outbox (
  sequence      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- The event (CloudEvents). A code in it is sealed.
  event         jsonb  NOT NULL,
  created_at    bigint NOT NULL,
  -- Until when whoever claimed it has it to itself; whoever died leaves it to the next after that.
  claimed_until bigint NOT NULL DEFAULT 0,
  tries         bigint NOT NULL DEFAULT 0,
  -- Whose event it is, and goes with. Also one that is written while its user is being erased: a reference sees
  -- what the erasing statement cannot. Null for events of a range or of an erasure.
  user_id       bigint REFERENCES users ON DELETE CASCADE
)
-- Rows come and go: what they leave is cleaned up early.
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE INDEX outbox_of_a_user ON outbox (user_id);

-- Events that were refused for good, or waited too long, with the reason: one bad event holds nobody up.
CREATE TABLE outbox_dead (
  sequence   bigint PRIMARY KEY,
  event      jsonb  NOT NULL,
  created_at bigint NOT NULL,
  died_at    bigint NOT NULL,
  reason     text   NOT NULL,
  user_id    bigint REFERENCES users ON DELETE CASCADE
);

CREATE INDEX outbox_dead_of_a_user ON outbox_dead (user_id)
