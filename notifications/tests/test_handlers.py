from decimal import Decimal

import pytest

from notifications.handlers import NotificationHandler, to_notification
from notifications.models import Notification
from tests.factories import OrderEventFactory


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
    again = OrderEventFactory.build(event_id=event.event_id, user_id=99)
    NotificationHandler().save([event, again])
    NotificationHandler().save([again, other])
    assert Notification.objects.count() == 2
    assert Notification.objects.get(event_id=event.event_id).user_id == event.user_id
