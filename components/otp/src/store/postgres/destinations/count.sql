-- Adds to the counts of ranges.
-- $1 slot  $2 JSON array of {"prefix", "sent", "verified"}
INSERT INTO destinations AS known (prefix, slot, sent, verified)
SELECT counted ->> 'prefix', $1::bigint, (counted ->> 'sent')::bigint, (counted ->> 'verified')::bigint
FROM jsonb_array_elements($2::jsonb) AS counted
-- In one order, or two hosts might wait for each other.
ORDER BY 1
ON CONFLICT (prefix, slot) DO UPDATE SET
  sent = known.sent + excluded.sent, verified = known.verified + excluded.verified
