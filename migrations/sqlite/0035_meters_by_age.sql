CREATE INDEX meters_by_age ON meters (empty_at)
