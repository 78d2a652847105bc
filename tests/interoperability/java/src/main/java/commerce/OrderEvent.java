package commerce;

import java.math.BigDecimal;
import java.time.Instant;
import java.util.UUID;

/** As docs/events.md hands it to Java services. */
public record OrderEvent(
        UUID eventId, String eventType, Instant timestamp, long orderId, long userId, BigDecimal totalAmount) {}
