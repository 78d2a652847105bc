from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from prometheus_client import REGISTRY

from events.kafka import Record
from events.wire.timestamps import now
from notifications.management.commands import consume_order_events
from notifications.models import Notification
from notifications.subscriptions import NOTIFICATIONS, notify, to_notification
from orders.events import OrderEvent, encode
from testkit.factories import OrderEventFactory, kafka_record
from testkit.subscriptions import process


@pytest.mark.parametrize(
    ("event_type", "message"),
    [
        ("ORDER_CREATED", "주문이 생성되었습니다. 주문번호: 123, 금액: 50000.00원"),
        ("ORDER_PAID", "결제가 완료되었습니다. 주문번호: 123, 금액: 50000.00원"),
        ("ORDER_CANCELLED", "주문이 취소되었습니다. 주문번호: 123, 금액: 50000.00원"),
    ],
)
def test_every_event_has_its_text(event_type: str, message: str) -> None:
    event = OrderEventFactory.build(event_type=event_type, order_id=123)
    notification = to_notification(event)
    assert notification.message == message
    assert (notification.type, notification.order_id, notification.user_id) == (event_type, 123, 45)
    assert notification.event_id == event.event_id


def test_the_longest_text_fits() -> None:
    event = OrderEventFactory.build(order_id=-(2**63), total_amount=-Decimal("9" * 26 + ".99"))
    assert len(to_notification(event).message) <= 200


@pytest.mark.django_db
def test_an_event_that_comes_again_changes_nothing() -> None:
    event = OrderEventFactory.build()
    other = OrderEventFactory.build()
    again = msgspec.structs.replace(event, timestamp=now(), total_amount=Decimal("1.00"))
    notify([event, again])
    notify([again, other])
    assert Notification.objects.count() == 2
    assert Notification.objects.get(event_id=event.event_id).message == to_notification(event).message


def records(*events: OrderEvent) -> list[Record]:
    return [kafka_record(encode(event), offset=offset) for offset, event in enumerate(events)]


def counted(name: str, *, group: str = "group", **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"group": group, **labels}) or 0


@pytest.mark.django_db(transaction=True)
def test_another_group_adds_no_latencies() -> None:
    """A group that reads an old backlog would report long latencies, and so hide how late the notifications are."""
    before = counted("event_end_to_end_seconds_count", group=NOTIFICATIONS.group)
    process(records(OrderEventFactory.build(timestamp=now())), replace(NOTIFICATIONS, measures_latency=False))
    assert counted("event_end_to_end_seconds_count", group=NOTIFICATIONS.group) == before


@pytest.mark.django_db
def test_the_command_refuses_the_group_of_another_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the command accepted such a group, it would commit offsets without calling that group's subscription."""
    monkeypatch.setattr(
        consume_order_events, "subscriptions", lambda: [NOTIFICATIONS, replace(NOTIFICATIONS, group="audit")]
    )
    with pytest.raises(CommandError, match=r"Run `manage\.py consume audit`"):
        call_command("consume_order_events", "--group", "audit")


@pytest.mark.django_db(transaction=True)
def test_new_events_and_duplicates_are_counted_when_saved() -> None:
    def counts() -> tuple[float, ...]:
        return (
            counted("events_consumed_total", event_type="ORDER_PAID", outcome="handled"),
            counted("events_consumed_total", event_type="ORDER_PAID", outcome="duplicate"),
            counted("event_end_to_end_seconds_count"),
            counted("event_end_to_end_seconds_bucket", le="60.0")
            - counted("event_end_to_end_seconds_bucket", le="30.0"),
        )

    before = counts()
    paid, other = OrderEventFactory.build_batch(2, event_type="ORDER_PAID", timestamp=now() - timedelta(seconds=45))
    with transaction.atomic():
        process(records(paid, paid))
        assert counts() == before
    process(records(other, paid))
    assert [after - known for after, known in zip(counts(), before, strict=True)] == [2, 2, 2, 2]
