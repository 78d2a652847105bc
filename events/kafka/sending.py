"""Sending, and Kafka's word on every single message."""

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

from events.headers import unpack
from events.kafka.connecting import connect
from events.kafka.patches.network import ClosingProducer, SleepingNetworkClient
from events.messages import Message

# The relay's turn ends by itself after 8 s (events.outbox.relay): a send has to be over before that.
METADATA_TIMEOUT_MS = 2_000
REQUEST_TIMEOUT_MS = 4_000
DELIVERY_TIMEOUT_MS = 5_000
# A wave leaves in one request, when `send_all` has handed it over: the client's thread needs 1.2 ms for each request.
LINGER_MS = 500
SLICE, NAP = 30, 0.002
"""Messages that a producer which gives way hands over without a pause, and seconds of the pause. With slices of 10, a
saturated server took 4 % fewer orders."""
# A dead letter's copy may carry a value of 1 MiB and Spring's headers beside it.
MAX_MESSAGE_BYTES = 2 * 1024 * 1024


class Sent(NamedTuple):
    """Acknowledged by Kafka: where the message stands."""

    partition: int
    offset: int


class Unsendable(Exception):
    """A message that no Kafka would ever take, for a reason of its own."""


class Producer:
    """Sends messages and waits for Kafka's word on each. Not shared across a fork."""

    def __init__(self, *, gives_way: bool = False) -> None:
        """With `gives_way`, other threads of this process get their turn within a wave: requests wait for the
        interpreter's lock otherwise. Raises KafkaUnreachable.
        """
        self._slice = SLICE if gives_way else sys.maxsize
        self._client = connect(
            ClosingProducer,
            network=SleepingNetworkClient,
            # With idempotence, messages of a producer that never got its id would never expire. Without it, one
            # request in flight keeps the order, and a repeat is absorbed by the consumer.
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
            # Nobody reads them, and they take a fifth of what a wave costs in the client's thread.
            metrics_enabled=False,
        )

    def send_all(self, messages: Sequence[Message]) -> list[Sent | Exception]:
        """One outcome per message, in order: `Sent`, `Unsendable`, or the outage that kept it.

        Returns within about `METADATA_TIMEOUT_MS` per topic plus `DELIVERY_TIMEOUT_MS`, with nothing left in flight.
        """
        outages: dict[str, Exception] = {}
        futures = []
        for number, message in enumerate(messages, 1):
            if number % self._slice == 0:
                time.sleep(NAP)
            try:
                # Each send to a topic without metadata would block anew.
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
        """The wanted partition, or none (by key) where the topic has fewer."""
        if message.partition is None or message.partition not in self._client.partitions_for(message.topic):
            return None
        return message.partition

    def close(self) -> None:
        """Messages in flight are given up; their rows stay pending."""
        self._client.close(timeout=1)


def _outcome(future: Any, deadline: float) -> Sent | Exception:
    try:
        metadata = future.get(timeout=max(0.0, deadline - time.monotonic()))
    except (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError) as error:
        return Unsendable(f"{type(error).__name__}: {error}")
    except KafkaError as error:
        return error
    return Sent(metadata.partition, metadata.offset)
