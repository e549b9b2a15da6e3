package peer;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.data.redis.RedisAutoConfiguration;
import org.springframework.boot.autoconfigure.data.redis.RedisReactiveAutoConfiguration;
import org.springframework.boot.autoconfigure.kafka.KafkaAutoConfiguration;
import org.springframework.http.MediaType;
import org.springframework.http.converter.HttpMessageConverter;
import org.springframework.http.converter.json.MappingJackson2HttpMessageConverter;
import org.springframework.web.servlet.config.annotation.WebMvcConfigurer;

@SpringBootApplication(proxyBeanMethods = false)
class Application implements WebMvcConfigurer {
    public static void main(String[] args) {
        var application = new SpringApplication(Application.class);
        application.setDefaultProperties(Map.of("spring.autoconfigure.exclude", leftOut(System.getenv())));
        application.run(args);
    }

    /** What is not asked for is not configured at all, so that it costs nothing and connects to nothing. */
    private static List<String> leftOut(Map<String, String> environment) {
        var classes = new ArrayList<Class<?>>();
        if (environment.getOrDefault("REDIS_HOST", "").isEmpty()) {
            classes.add(RedisAutoConfiguration.class);
            classes.add(RedisReactiveAutoConfiguration.class);
        }
        if (environment.getOrDefault("KAFKA_BROKERS", "").isEmpty()) {
            classes.add(KafkaAutoConfiguration.class);
        }
        return classes.stream().map(Class::getName).toList();
    }

    /** Takes a body without a Content-Type, which Spring holds for an octet-stream, as JSON. */
    @Override
    public void extendMessageConverters(List<HttpMessageConverter<?>> converters) {
        for (var converter : converters) {
            if (converter instanceof MappingJackson2HttpMessageConverter json) {
                var types = new ArrayList<>(json.getSupportedMediaTypes());
                types.add(MediaType.APPLICATION_OCTET_STREAM);
                json.setSupportedMediaTypes(types);
            }
        }
    }
}
