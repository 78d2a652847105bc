"""A bare consumer loop: it polls, decodes, saves with `bulk_create` and commits, and handles no error."""

import sys

import django
import msgspec
from kafka import KafkaConsumer

django.setup()

from django.conf import settings  # noqa: E402

from notifications.models import Notification  # noqa: E402


class Event(msgspec.Struct, rename="camel"):
    event_id: str
    event_type: str
    order_id: int
    user_id: int
    total_amount: float


def main(topic: str, group: str) -> None:
    decode = msgspec.json.Decoder(Event).decode
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
        events = [decode(record.value) for records in polled.values() for record in records]
        if not events:
            continue
        Notification.objects.bulk_create(
            [
                Notification(
                    user_id=event.user_id,
                    order_id=event.order_id,
                    event_id=event.event_id,
                    type=event.event_type,
                    message=f"주문이 생성되었습니다. 주문번호: {event.order_id}, 금액: {event.total_amount:.2f}원",
                )
                for event in events
            ],
            ignore_conflicts=True,
        )
        consumer.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
