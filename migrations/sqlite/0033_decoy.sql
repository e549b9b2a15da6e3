-- Nobody's row. Where answers must not tell a known number from an unknown one, a statement about an unknown
-- number does to this row what it would do to a known one that it refuses: the same work, the same time.
INSERT INTO users (id, mobile_number) VALUES (0, '')
