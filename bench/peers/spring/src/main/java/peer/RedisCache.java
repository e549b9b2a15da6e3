package peer;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Optional;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.boot.autoconfigure.condition.ConditionalOnExpression;
import org.springframework.dao.DataAccessException;
import org.springframework.data.redis.connection.RedisConnectionFactory;
import org.springframework.data.redis.core.RedisTemplate;
import org.springframework.data.redis.serializer.Jackson2JsonRedisSerializer;
import org.springframework.data.redis.serializer.StringRedisSerializer;
import org.springframework.stereotype.Component;

/** The database is what counts: a Redis that fails is logged and does not fail the call. */
@Component
@ConditionalOnExpression("!'${REDIS_HOST:}'.isEmpty()")
class RedisCache implements OtpCache {
    private static final Logger LOG = LoggerFactory.getLogger(RedisCache.class);

    private final RedisTemplate<String, Otp.Issued> redis = new RedisTemplate<>();

    RedisCache(RedisConnectionFactory connections, ObjectMapper json) {
        redis.setConnectionFactory(connections);
        redis.setKeySerializer(StringRedisSerializer.UTF_8);
        redis.setValueSerializer(new Jackson2JsonRedisSerializer<>(json, Otp.Issued.class));
        redis.afterPropertiesSet();
    }

    @Override
    public Optional<Otp.Issued> get(String mobileNumber) {
        return attempt("read", () -> redis.opsForValue().get(key(mobileNumber)));
    }

    @Override
    public void put(Otp.Issued otp) {
        attempt("written", () -> {
            redis.opsForValue().set(key(otp.mobileNumber()), otp, OtpService.LIFETIME);
            return null;
        });
    }

    @Override
    public void evict(String mobileNumber) {
        attempt("evicted", () -> redis.delete(key(mobileNumber)));
    }

    private static <T> Optional<T> attempt(String what, Supplier<T> call) {
        try {
            return Optional.ofNullable(call.get());
        } catch (DataAccessException e) {
            LOG.warn("the cache was not {}: {}", what, e.getMessage());
            return Optional.empty();
        }
    }

    private static String key(String mobileNumber) {
        return "otp:" + mobileNumber;
    }
}
