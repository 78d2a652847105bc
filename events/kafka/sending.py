"""Send messages to Kafka, and return the outcome of each."""

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from kafka.errors import (
    InvalidRecordError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from events.kafka.connecting import connect
from events.kafka.patches.network import ClosingProducer, SleepingNetworkClient
from events.wire.headers import unpack
from events.wire.messages import Message

# Together they must end within a relay's turn, which has 8 s (events.outbox.relay).
METADATA_TIMEOUT_MS = 2_000
REQUEST_TIMEOUT_MS = 4_000
DELIVERY_TIMEOUT_MS = 5_000
LINGER_MS = 500
"""Longest wait of the client for more messages, in milliseconds. `send_all` flushes earlier, so its messages leave in
one request."""
YIELD_EVERY_MESSAGES = 30
"""Number of messages that a `Producer` with `yields` sends between two pauses."""
YIELD_PAUSE_S = 0.002
"""Seconds of each pause in `send_all` of a `Producer` with `yields`. Other threads run during the pause."""
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""Largest message, in bytes. The copy of a dead letter may have a value of 1 MiB and Spring's headers."""


class Sent(NamedTuple):
    """The position of a message that Kafka has acknowledged."""

    partition: int
    offset: int


class Unsendable(Exception):
    """A message that can never be sent, because of its own content."""


class Producer:
    """Sends messages and waits for Kafka's acknowledgement of each. It must not be shared across a fork."""

    def __init__(self, *, yields: bool = False) -> None:
        """Connect to Kafka. Raises KafkaUnreachable.

        With `yields` the producer pauses within `send_all`, so that threads that handle HTTP requests get the
        interpreter's lock.
        """
        self._yield_every = YIELD_EVERY_MESSAGES if yields else sys.maxsize
        self._client = connect(
            ClosingProducer,
            network=SleepingNetworkClient,
            # With idempotence, a producer that has got no producer id never lets a message expire. Without it, one
            # request in flight keeps the order, and consumers ignore repeats.
            enable_idempotence=False,
            acks="all",
            max_in_flight_requests_per_connection=1,
            allow_auto_create_topics=False,
            max_block_ms=METADATA_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            max_request_size=MAX_MESSAGE_BYTES,
            batch_size=128 * 1024,
            linger_ms=LINGER_MS,
            # The client's metrics are unused, and they cost CPU (docs/performance.md).
            metrics_enabled=False,
        )

    def send_all(self, messages: Sequence[Message]) -> list[Sent | Exception]:
        """Send `messages`, and return one outcome per message in their order: `Sent`, `Unsendable`, or a KafkaError.

        The call takes at most about `METADATA_TIMEOUT_MS` per topic plus `DELIVERY_TIMEOUT_MS`. No message is left in
        flight.
        """
        outages: dict[str, Exception] = {}
        futures = []
        for number, message in enumerate(messages, 1):
            if number % self._yield_every == 0:
                time.sleep(YIELD_PAUSE_S)
            try:
                # After an outage, another send to the same topic would block for `METADATA_TIMEOUT_MS` again.
                futures.append(outages.get(message.topic) or self._send(message))
            except Unsendable as error:
                futures.append(error)
            except KafkaError as error:
                outages[message.topic] = error
                futures.append(error)
        timeout = DELIVERY_TIMEOUT_MS / 1000 + 1
        deadline = time.monotonic() + timeout
        self._client.flush(timeout)
        return [future if isinstance(future, Exception) else _outcome(future, deadline) for future in futures]

    def _send(self, message: Message) -> Any:
        try:
            return self._client.send(
                message.topic,
                key=message.key,
                value=message.value,
                headers=unpack(message.headers),
                partition=self._partition(message),
            )
        except (ValueError, TypeError, MessageSizeTooLargeError) as error:
            raise Unsendable(str(error)) from error

    def _partition(self, message: Message) -> int | None:
        """Return the partition that the message names, or None if it names none or the topic does not have it.

        With None, the message's key decides the partition.
        """
        if message.partition is None or message.partition not in self._client.partitions_for(message.topic):
            return None
        return message.partition

    def close(self) -> None:
        """Close the client within a second. Messages in flight are abandoned, and their outbox rows stay pending."""
        self._client.close(timeout=1)


def _outcome(future: Any, deadline: float) -> Sent | Exception:
    try:
        metadata = future.get(timeout=max(0.0, deadline - time.monotonic()))
    except (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError) as error:
        return Unsendable(f"{type(error).__name__}: {error}")
    except KafkaError as error:
        return error
    return Sent(metadata.partition, metadata.offset)
