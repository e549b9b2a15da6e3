-- What was answered to a request with an Idempotency-Key, so that its retry hears the same. Written in the
-- statement of the code, so that there is no code without it.
CREATE TABLE idempotency (
  -- Keyed hash of the caller's name, the route and the key: a key is its caller's and its route's own.
  id              text   PRIMARY KEY,
  -- Keyed hash of what was asked for: the same key for something else is a mistake of the caller.
  request         text   NOT NULL,
  user_id         bigint NOT NULL REFERENCES users ON DELETE CASCADE,
  -- The code, as it was then; null where a refusal was answered as if there were one.
  otp_id          text,
  -- The code as it was sealed then: never in clear.
  sealed          bytea,
  channel         text,
  created_at      bigint,
  code_expires_at bigint,
  -- When the answer itself is forgotten.
  expires_at      bigint NOT NULL
);

CREATE INDEX idempotency_of_a_user ON idempotency (user_id);
CREATE INDEX idempotency_by_age ON idempotency (expires_at);

-- Whether a request was answered, as it is at this very moment: also inside of a statement that began before the answer
-- and had to wait for it. In PL/pgSQL, which plans once a session what SQL's own functions plan at each call: only some
-- requests come here, and the time that they take shall not tell which.
CREATE FUNCTION is_answered(id text, now bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $is_answered$
BEGIN
  RETURN EXISTS (SELECT FROM idempotency WHERE idempotency.id = $1 AND expires_at > $2);
END
$is_answered$
