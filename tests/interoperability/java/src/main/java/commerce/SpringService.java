package commerce;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.listener.DeadLetterPublishingRecoverer;
import org.springframework.kafka.listener.ListenerExecutionFailedException;
import org.springframework.kafka.support.KafkaHeaders;
import org.springframework.kafka.support.serializer.JacksonJsonDeserializer;
import org.springframework.kafka.support.serializer.JacksonJsonSerializer;
import org.springframework.kafka.support.serializer.JsonDeserializer;
import org.springframework.kafka.support.serializer.JsonSerializer;

/**
 * Reads and writes the topics as another team's service would. Each line of its input is a command, answered with one
 * line of JSON. Numbers are written as text, because what matters is what Java made of them.
 */
@SuppressWarnings("removal") // Spring's serializers on Jackson 2, which services have until they have left them.
public final class SpringService {
    private static final Duration TIMEOUT = Duration.ofSeconds(20);

    private final String servers;

    private SpringService(String servers) {
        this.servers = servers;
    }

    public static void main(String[] arguments) throws Exception {
        var service = new SpringService(arguments[0]);
        var json = new ObjectMapper();
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = input.readLine()) != null; ) {
            System.out.println(json.writeValueAsString(service.answer(line.split(" "))));
        }
    }

    private Object answer(String[] words) throws Exception {
        return switch (words[0]) {
            case "read-jackson2" -> readEvents(words[1], new JsonDeserializer<>(OrderEvent.class, false));
            case "read-jackson3" -> readEvents(words[1], new JacksonJsonDeserializer<>(OrderEvent.class, false));
            case "send-jackson2" -> send(words, new JsonSerializer<>());
            case "send-jackson3" -> send(words, new JacksonJsonSerializer<>());
            case "read-dead-letters" -> readDeadLetters(words[1]);
            case "dead-letter" -> deadLetter(words[1], words[2], words[3]);
            default -> throw new IllegalArgumentException(words[0]);
        };
    }

    // --- Events -------------------------------------------------------------------------------

    private List<Map<String, Object>> readEvents(String topic, Deserializer<OrderEvent> deserializer) {
        return read(topic, deserializer).stream().map(record -> describe(record.value())).toList();
    }

    private static Map<String, Object> describe(OrderEvent event) {
        var description = new LinkedHashMap<String, Object>();
        description.put("eventId", event.eventId().toString());
        description.put("eventType", event.eventType());
        description.put("timestamp", event.timestamp().toString());
        description.put("orderId", Long.toString(event.orderId()));
        description.put("userId", Long.toString(event.userId()));
        description.put("totalAmount", event.totalAmount().toPlainString());
        return description;
    }

    /** Sends one event, as `send topic eventType orderId userId totalAmount`. */
    private Map<String, Object> send(String[] words, Serializer<OrderEvent> serializer) throws Exception {
        var event = new OrderEvent(
                UUID.randomUUID(), words[2], Instant.now(), Long.parseLong(words[3]), Long.parseLong(words[4]),
                new BigDecimal(words[5]));
        var factory = new DefaultKafkaProducerFactory<>(producing(), new StringSerializer(), serializer);
        try {
            new KafkaTemplate<>(factory)
                    .send(words[1], words[3], event)
                    .get(TIMEOUT.toSeconds(), TimeUnit.SECONDS);
        } finally {
            factory.destroy();
        }
        return describe(event);
    }

    // --- Dead letters -------------------------------------------------------------------------

    /** What Spring's constants name in each dead letter, in the encodings of DeadLetterPublishingRecoverer. */
    private List<Map<String, Object>> readDeadLetters(String topic) {
        return read(topic, new ByteArrayDeserializer()).stream().map(SpringService::describe).toList();
    }

    private static Map<String, Object> describe(ConsumerRecord<byte[], byte[]> letter) {
        var description = new LinkedHashMap<String, Object>();
        for (var name : List.of(
                KafkaHeaders.DLT_ORIGINAL_TOPIC,
                KafkaHeaders.DLT_ORIGINAL_CONSUMER_GROUP,
                KafkaHeaders.DLT_EXCEPTION_FQCN,
                KafkaHeaders.DLT_EXCEPTION_MESSAGE,
                KafkaHeaders.DLT_EXCEPTION_STACKTRACE)) {
            description.put(name, text(letter, name));
        }
        var timestampType = TimestampType.forName(text(letter, KafkaHeaders.DLT_ORIGINAL_TIMESTAMP_TYPE));
        description.put(KafkaHeaders.DLT_ORIGINAL_TIMESTAMP_TYPE, timestampType.name());
        description.put(
                KafkaHeaders.DLT_ORIGINAL_PARTITION,
                number(letter, KafkaHeaders.DLT_ORIGINAL_PARTITION, Integer.BYTES).getInt());
        description.put(
                KafkaHeaders.DLT_ORIGINAL_OFFSET,
                number(letter, KafkaHeaders.DLT_ORIGINAL_OFFSET, Long.BYTES).getLong());
        description.put(
                KafkaHeaders.DLT_ORIGINAL_TIMESTAMP,
                number(letter, KafkaHeaders.DLT_ORIGINAL_TIMESTAMP, Long.BYTES).getLong());
        return description;
    }

    private static String text(ConsumerRecord<?, ?> letter, String name) {
        return new String(letter.headers().lastHeader(name).value(), StandardCharsets.UTF_8);
    }

    private static ByteBuffer number(ConsumerRecord<?, ?> letter, String name, int bytes) {
        var value = letter.headers().lastHeader(name).value();
        if (value.length != bytes) {
            throw new IllegalArgumentException(name + " has " + value.length + " bytes");
        }
        return ByteBuffer.wrap(value);
    }

    /** Lets Spring's own recoverer dead-letter the only message of a topic. */
    private int deadLetter(String topic, String letters, String group) throws Exception {
        var records = read(topic, new ByteArrayDeserializer());
        var factory = new DefaultKafkaProducerFactory<>(producing(), new ByteArraySerializer(), new ByteArraySerializer());
        try {
            var recoverer = new DeadLetterPublishingRecoverer(
                    new KafkaTemplate<>(factory), (record, error) -> new TopicPartition(letters, record.partition()));
            for (var record : records) {
                var cause = new IllegalArgumentException("no event");
                recoverer.accept(record, null, new ListenerExecutionFailedException("failed", group, cause));
            }
        } finally {
            factory.destroy();
        }
        return records.size();
    }

    // --- Kafka --------------------------------------------------------------------------------

    private Map<String, Object> producing() {
        return Map.of(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
    }

    /** All that stands on the topic now. */
    private <V> List<ConsumerRecord<byte[], V>> read(String topic, Deserializer<V> deserializer) {
        var config = Map.<String, Object>of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, servers,
                ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        var factory = new DefaultKafkaConsumerFactory<>(config, new ByteArrayDeserializer(), deserializer);
        var records = new ArrayList<ConsumerRecord<byte[], V>>();
        try (var consumer = factory.createConsumer()) {
            var partitions = consumer.partitionsFor(topic, TIMEOUT).stream()
                    .map(partition -> new TopicPartition(topic, partition.partition()))
                    .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var ends = consumer.endOffsets(partitions, TIMEOUT);
            while (partitions.stream().anyMatch(one -> consumer.position(one, TIMEOUT) < ends.get(one))) {
                consumer.poll(Duration.ofMillis(200)).forEach(records::add);
            }
        }
        return records;
    }
}
