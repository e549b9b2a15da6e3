-- Removes all that is known of a number, and leaves the event on which others forget it, too: whether the number is
-- known here or not. What refers to the user goes with the row, also what is written while this waits for it.
--
-- `version` is the newest code that there ever was: whatever of it is still on its way is not delivered. Of an unknown
-- number that is one of a moment before which no statement can have begun that has not ended yet: a user who comes into
-- being beside this is not meant.
-- What an erasure before has left is not touched: it knew the version, if it was the first.
-- $1 number  $2 now  $3 keyed index of the number  $4 event  $5 moment from which it is too late, by the server's clock
WITH types AS (SELECT $2::bigint),
gone AS (
  DELETE FROM users WHERE mobile_number = $1::text RETURNING event_sequence, version
),
noted AS (
  UPDATE forgotten SET up_to = greatest(up_to, event_sequence + 1, version) FROM gone
),
-- Those of the number while it was unknown are a decoy's.
nobodys AS (
  DELETE FROM outbox WHERE (user_id <= 0 OR user_id IS NULL) AND event ->> 'subject' = $3::text
                       AND event ->> 'type' <> 'user.erased.v1'
),
nobodys_dead AS (
  DELETE FROM outbox_dead WHERE (user_id <= 0 OR user_id IS NULL) AND event ->> 'subject' = $3
                            AND event ->> 'type' <> 'user.erased.v1'
)
INSERT INTO outbox (event, created_at)
SELECT $4::jsonb || jsonb_build_object(
         'sequence', lpad(coalesce(event_sequence + 1, before)::text, 20, '0'),
         'data', jsonb_build_object('version', coalesce(version, before))),
       CASE WHEN clock_millis() < $5::bigint THEN clock_millis() ELSE give_up('OTP01') END
FROM (SELECT clock_millis() - 10000 AS before) AS moment LEFT JOIN gone ON true
