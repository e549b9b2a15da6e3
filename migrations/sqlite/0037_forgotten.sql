-- The greatest number that an erased user's codes and events had. Those of a new user begin after it: a number that is
-- erased and used again within one millisecond, or by a clock that stands behind, must not take up where it was.
CREATE TABLE forgotten (
  id    INTEGER PRIMARY KEY CHECK (id = 0),
  up_to INTEGER NOT NULL
) STRICT
