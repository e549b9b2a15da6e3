package peer;

import com.fasterxml.jackson.annotation.JsonProperty;
import jakarta.persistence.Column;
import jakarta.persistence.Entity;
import jakarta.persistence.Id;
import jakarta.persistence.Table;
import java.time.Instant;

/** The one row of a number. */
@Entity
@Table(name = "otp")
class Otp {
    @Id
    @Column(name = "mobile_number", length = 16)
    String mobileNumber;

    @Column(nullable = false, length = 6)
    String code;

    @Column(name = "created_at", nullable = false)
    Instant createdAt;

    @Column(name = "expires_at", nullable = false)
    Instant expiresAt;

    @Column(nullable = false)
    int attempts;

    @Column(nullable = false)
    boolean verified;

    Issued issued() {
        return new Issued(mobileNumber, code, createdAt, expiresAt);
    }

    /** A code as it is answered and cached. */
    record Issued(String mobileNumber, @JsonProperty("otp") String code, Instant createdAt, Instant expiresAt) {
        boolean isExpiredAt(Instant now) {
            return !expiresAt.isAfter(now);
        }
    }
}
