-- When a refusal of this number was last put on record: the first of a window is enough.
ALTER TABLE users ADD COLUMN refused_at INTEGER
