"""A bare loop of the consumer `sales`: it polls, decodes, runs the product's SQL and commits, and handles no error."""

import sys
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

import django
import msgspec
from kafka import KafkaConsumer

django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from events.inbox import CLAIM  # noqa: E402
from sales.sums.adding import ADD  # noqa: E402
from sales.sums.foreign import DIFFERING  # noqa: E402


class Event(msgspec.Struct, rename="camel"):
    event_id: str
    event_type: str
    timestamp: datetime
    order_id: int
    user_id: int
    total_amount: Decimal


decode = msgspec.json.Decoder(Event, float_hook=Decimal).decode
encoder = msgspec.json.Encoder()


def sums(events: list[tuple[int, Event, bytes]]) -> dict[str, str]:
    """Return the parameters with which the product's statement `ADD` adds `events` to the sums of sales.

    All `events` count as ORDER_CREATED, because a benchmark's backlog has no others.
    """
    buckets: dict[Any, list[Any]] = {}
    summaries: dict[Any, list[Any]] = {}
    for partition, event, _ in events:
        bucket = buckets.setdefault((event.timestamp.replace(second=0, microsecond=0), partition), [0, Decimal(0)])
        bucket[0] += 1
        bucket[1] += event.total_amount
        summary = summaries.setdefault((event.user_id, partition), [0, event.timestamp])
        summary[0] += 1
        summary[1] = max(summary[1], event.timestamp)
    return {
        "buckets": encoder.encode(
            [
                {
                    "minute": minute,
                    "event_type": "ORDER_CREATED",
                    "partition": partition,
                    "count": count,
                    "amount": sum_,
                }
                for (minute, partition), (count, sum_) in buckets.items()
            ]
        ).decode(),
        "summaries": encoder.encode(
            [
                {"user_id": user, "partition": partition, "orders": orders, "paid": 0, "cancelled": 0}
                | {"amount_paid": 0, "last_order_at": last}
                for (user, partition), (orders, last) in summaries.items()
            ]
        ).decode(),
    }


def main(topic: str, group: str) -> None:
    consumer = KafkaConsumer(
        topic,
        group_id=group,
        bootstrap_servers=settings.KAFKA_BOOTSTRAP_SERVERS,
        api_version=settings.KAFKA_API_VERSION,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=500,
    )
    while True:
        polled = consumer.poll(timeout_ms=1000)
        events = [
            (record.partition, decode(record.value), record.value) for records in polled.values() for record in records
        ]
        if not events:
            continue
        identities = [
            {"event_id": one.event_id, "event_type": one.event_type, "stream": f"order-{one.order_id}"}
            | {"owner": one.user_id, "digest": rf"\x{sha256(value).hexdigest()}"}
            for _, one, value in events
        ]
        rows = encoder.encode(identities).decode()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(CLAIM, [group, rows])
            cursor.fetchall()
            cursor.execute(DIFFERING, [rows])
            cursor.fetchall()
            cursor.execute(ADD, sums(events))
        consumer.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
