package peer;

import java.security.SecureRandom;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.UUID;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.dao.DataIntegrityViolationException;
import org.springframework.stereotype.Service;
import org.springframework.transaction.support.TransactionTemplate;

/** One short transaction a call; the cache and the event come after its commit. */
@Service
class OtpService {
    static final Duration LIFETIME = Duration.ofMinutes(10);

    private final SecureRandom random = new SecureRandom();
    private final OtpRepository repository;
    private final TransactionTemplate transaction;
    private final OtpCache cache;
    private final OtpEvents events;

    OtpService(
            OtpRepository repository,
            TransactionTemplate transaction,
            ObjectProvider<OtpCache> cache,
            ObjectProvider<OtpEvents> events) {
        this.repository = repository;
        this.transaction = transaction;
        this.cache = cache.getIfAvailable(() -> new OtpCache() {});
        this.events = events.getIfAvailable(() -> new OtpEvents() {});
    }

    Otp.Issued generate(String mobileNumber) {
        var otp = newCode(mobileNumber);
        try {
            upsert(otp);
        } catch (DataIntegrityViolationException e) {
            // H2's merge can lose the race to make a number's first row; by now the row is there.
            upsert(otp);
        }
        cache.put(otp);
        send("otp.generated.v1", mobileNumber);
        return otp;
    }

    Otp.Issued regenerate(String mobileNumber) {
        var otp = newCode(mobileNumber);
        if (repository.replace(mobileNumber, otp.code(), otp.createdAt(), otp.expiresAt()) == 0) {
            throw OtpProblem.UNKNOWN.exception();
        }
        cache.put(otp);
        send("otp.regenerated.v1", mobileNumber);
        return otp;
    }

    Otp.Issued resend(String mobileNumber) {
        var otp = cache.get(mobileNumber).orElseGet(() -> load(mobileNumber));
        if (otp.isExpiredAt(Instant.now())) {
            throw OtpProblem.EXPIRED.exception();
        }
        send("otp.resent.v1", mobileNumber);
        return otp;
    }

    void verify(String mobileNumber, String code) {
        // The problem is thrown outside of the transaction: inside it would undo the count of attempts.
        var problem = transaction.execute(status -> tryVerify(mobileNumber, code));
        if (problem != null) {
            throw problem.exception();
        }
        cache.evict(mobileNumber);
        send("otp.verified.v1", mobileNumber);
    }

    private OtpProblem tryVerify(String mobileNumber, String code) {
        var now = Instant.now();
        if (repository.verify(mobileNumber, code, now) == 1) {
            return null;
        }
        var otp = repository.findById(mobileNumber).orElse(null);
        if (otp == null) {
            return OtpProblem.UNKNOWN;
        }
        if (otp.verified) {
            return OtpProblem.USED;
        }
        if (otp.issued().isExpiredAt(now)) {
            return OtpProblem.EXPIRED;
        }
        repository.countAttempt(mobileNumber);
        return OtpProblem.MISMATCH;
    }

    private void upsert(Otp.Issued otp) {
        repository.upsert(otp.mobileNumber(), otp.code(), otp.createdAt(), otp.expiresAt());
    }

    private Otp.Issued load(String mobileNumber) {
        var otp = repository.findById(mobileNumber).orElseThrow(OtpProblem.UNKNOWN::exception);
        if (otp.verified) {
            throw OtpProblem.USED.exception();
        }
        return otp.issued();
    }

    private Otp.Issued newCode(String mobileNumber) {
        // Milliseconds survive every database as they are.
        var now = Instant.now().truncatedTo(ChronoUnit.MILLIS);
        return new Otp.Issued(mobileNumber, sixDigits(), now, now.plus(LIFETIME));
    }

    private String sixDigits() {
        return Integer.toString(1_000_000 + random.nextInt(1_000_000)).substring(1);
    }

    private void send(String type, String mobileNumber) {
        events.send(new OtpEvents.Event(type, UUID.randomUUID(), mobileNumber, Instant.now()));
    }
}
