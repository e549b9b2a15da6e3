CREATE INDEX destinations_by_age ON destinations (slot)
