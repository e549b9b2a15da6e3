-- The last event of the user as its request knew it beforehand: id, type, time, request. A statement that
-- writes it puts the event into the outbox with it (the triggers below), so that there is no instant at
-- which one exists without the other.
ALTER TABLE users ADD COLUMN event TEXT
