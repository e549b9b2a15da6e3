package peer;

import java.util.Optional;

/** Holds codes as long as they live; as it stands it holds none. */
interface OtpCache {
    default Optional<Otp.Issued> get(String mobileNumber) {
        return Optional.empty();
    }

    default void put(Otp.Issued otp) {}

    default void evict(String mobileNumber) {}
}
