-- The greatest number that an erased user's codes and events had. Those of a new user begin after it: a number that is
-- erased and used again within one millisecond, or by a clock that stands behind, must not take up where it was.
CREATE TABLE forgotten (
  id    bigint PRIMARY KEY CHECK (id = 0),
  up_to bigint NOT NULL
);

INSERT INTO forgotten (id, up_to) VALUES (0, 0);

-- As it is at this very moment, also inside of a statement that began before an erasure and had to wait for it.
CREATE FUNCTION forgotten_up_to() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $forgotten_up_to$
BEGIN
  RETURN (SELECT up_to FROM forgotten);
END
$forgotten_up_to$
