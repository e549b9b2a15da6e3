-- For erasing a user.
CREATE INDEX idempotency_of_a_user ON idempotency (user_id)
