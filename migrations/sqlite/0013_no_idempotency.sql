-- Nothing was ever written into it; 0016 has the one that is used.
DROP TABLE idempotency
