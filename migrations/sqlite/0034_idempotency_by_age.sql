-- For dropping what has had its day, a part at a time, without looking at all of it.
CREATE INDEX idempotency_by_age ON idempotency (expires_at)
