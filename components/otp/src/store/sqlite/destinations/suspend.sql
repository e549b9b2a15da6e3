-- Suspends a range, unless somebody else has, and leaves the event (a trigger puts it into the outbox).
-- ?1 prefix  ?2 now  ?3 until  ?4 strikes  ?5 event
INSERT OR REPLACE INTO suspensions (prefix, since, until, strikes, event)
SELECT ?1, ?2, ?3, ?4, ?5
WHERE NOT EXISTS (SELECT 1 FROM suspensions WHERE prefix = ?1 AND until > ?2)
RETURNING 1
