-- Suspends a range, unless somebody else has, and leaves the event (a trigger puts it into the outbox).
-- ?1 application  ?2 prefix  ?3 now  ?4 until  ?5 strikes  ?6 event
INSERT OR REPLACE INTO suspensions (application, prefix, since, until, strikes, event)
SELECT ?1, ?2, ?3, ?4, ?5, ?6
WHERE NOT EXISTS (SELECT 1 FROM suspensions WHERE application = ?1 AND prefix = ?2 AND until > ?3)
RETURNING 1
