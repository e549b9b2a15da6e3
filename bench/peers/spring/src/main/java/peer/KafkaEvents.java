package peer;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.autoconfigure.condition.ConditionalOnExpression;
import org.springframework.kafka.KafkaException;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.stereotype.Component;

/** Sends in the background: the call does not wait for the broker, and an event that fails is logged and lost. */
@Component
@ConditionalOnExpression("!'${KAFKA_BROKERS:}'.isEmpty()")
class KafkaEvents implements OtpEvents {
    private static final Logger LOG = LoggerFactory.getLogger(KafkaEvents.class);

    private final KafkaTemplate<String, String> kafka;
    private final ObjectMapper json;
    private final String topic;

    KafkaEvents(KafkaTemplate<String, String> kafka, ObjectMapper json, @Value("${kafka-topic}") String topic) {
        this.kafka = kafka;
        this.json = json;
        this.topic = topic;
    }

    @Override
    public void send(Event event) {
        try {
            kafka.send(topic, event.mobileNumber(), json.writeValueAsString(event)).whenComplete((sent, e) -> {
                if (e != null) {
                    lost(event, e);
                }
            });
        } catch (KafkaException | JsonProcessingException e) {
            lost(event, e);
        }
    }

    private static void lost(Event event, Throwable e) {
        LOG.warn("event {} was not sent: {}", event.id(), e.getMessage());
    }
}
