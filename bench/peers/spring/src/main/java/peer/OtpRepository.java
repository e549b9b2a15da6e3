package peer;

import java.time.Instant;
import org.springframework.data.jpa.repository.JpaRepository;
import org.springframework.data.jpa.repository.Modifying;
import org.springframework.data.jpa.repository.Query;
import org.springframework.transaction.annotation.Transactional;

/** Every change is one statement, so that concurrent calls for a number cannot undo each other. */
interface OtpRepository extends JpaRepository<Otp, String> {
    @Transactional
    @Modifying
    @Query("""
            insert into Otp (mobileNumber, code, createdAt, expiresAt, attempts, verified)
            values (:mobileNumber, :code, :createdAt, :expiresAt, 0, false)
            on conflict (mobileNumber) do update
            set code = excluded.code, createdAt = excluded.createdAt, expiresAt = excluded.expiresAt,
                attempts = 0, verified = false""")
    void upsert(String mobileNumber, String code, Instant createdAt, Instant expiresAt);

    /** Returns 0 if the number is unknown. */
    @Transactional
    @Modifying
    @Query("""
            update Otp set code = :code, createdAt = :createdAt, expiresAt = :expiresAt,
                attempts = 0, verified = false
            where mobileNumber = :mobileNumber""")
    int replace(String mobileNumber, String code, Instant createdAt, Instant expiresAt);

    /** Marks a row whose code is right, unexpired and unused: returns 1 to one caller and 0 to all others. */
    @Transactional
    @Modifying
    @Query("""
            update Otp set verified = true
            where mobileNumber = :mobileNumber and code = :code and verified = false and expiresAt > :now""")
    int verify(String mobileNumber, String code, Instant now);

    @Transactional
    @Modifying
    @Query("update Otp set attempts = attempts + 1 where mobileNumber = :mobileNumber")
    void countAttempt(String mobileNumber);
}
