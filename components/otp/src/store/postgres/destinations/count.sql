-- Adds to the counts of ranges.
-- $1 slot  $2 JSON array of {"application", "prefix", "sent", "verified"}
INSERT INTO destinations AS known (application, prefix, slot, sent, verified)
SELECT counted ->> 'application', counted ->> 'prefix', $1::bigint, (counted ->> 'sent')::bigint,
       (counted ->> 'verified')::bigint
FROM jsonb_array_elements($2::jsonb) AS counted
-- In one order, or two hosts might wait for each other.
ORDER BY 1, 2
ON CONFLICT (application, prefix, slot) DO UPDATE SET
  sent = known.sent + excluded.sent, verified = known.verified + excluded.verified
