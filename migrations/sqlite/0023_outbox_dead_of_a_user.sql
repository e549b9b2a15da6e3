-- The dead are few, and may be no events at all.
CREATE INDEX outbox_dead_of_a_user ON outbox_dead (CASE WHEN json_valid(event) THEN event ->> '$.subject' END)
