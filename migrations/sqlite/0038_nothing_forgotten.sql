INSERT INTO forgotten (id, up_to) VALUES (0, 0)
