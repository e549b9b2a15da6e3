CREATE INDEX outbox_of_a_user ON outbox (user_id)
