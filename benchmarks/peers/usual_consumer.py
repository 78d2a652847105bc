"""The usual design: one transaction and one offset commit for each event, and a lookup that skips repeated events."""

import json
import sys
from uuid import UUID

import django
from kafka import KafkaConsumer

django.setup()

from django.conf import settings  # noqa: E402
from django.db import transaction  # noqa: E402

from notifications.models import Notification  # noqa: E402

TEXT = "주문이 생성되었습니다. 주문번호: {orderId}, 금액: {totalAmount:.2f}원"


def main(topic: str, group: str) -> None:
    consumer = KafkaConsumer(
        topic,
        group_id=group,
        bootstrap_servers=settings.KAFKA_BOOTSTRAP_SERVERS,
        api_version=settings.KAFKA_API_VERSION,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    for record in consumer:
        event = json.loads(record.value)
        with transaction.atomic():
            Notification.objects.get_or_create(
                event_id=UUID(event["eventId"]),
                defaults={
                    "user_id": event["userId"],
                    "order_id": event["orderId"],
                    "type": event["eventType"],
                    "message": TEXT.format(**event),
                },
            )
        consumer.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
