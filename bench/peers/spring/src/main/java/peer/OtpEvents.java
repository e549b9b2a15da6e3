package peer;

import java.time.Instant;
import java.util.UUID;

/** Tells others what happened; as it stands it tells nobody. */
interface OtpEvents {
    record Event(String type, UUID id, String mobileNumber, Instant time) {}

    default void send(Event event) {}
}
