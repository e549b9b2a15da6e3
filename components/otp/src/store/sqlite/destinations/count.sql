-- Adds to the counts of ranges.
-- ?1 slot  ?2 JSON array of {"application", "prefix", "sent", "verified"}
INSERT INTO destinations (application, prefix, slot, sent, verified)
SELECT value ->> '$.application', value ->> '$.prefix', ?1, value ->> '$.sent', value ->> '$.verified'
FROM json_each(?2) WHERE true
ON CONFLICT (application, prefix, slot) DO UPDATE SET
  sent = sent + excluded.sent, verified = verified + excluded.verified
