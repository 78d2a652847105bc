import json

import pytest
from django.contrib.auth.models import User
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from events.models import OutboxEvent
from events.wire.headers import unpack
from events.wire.timestamps import now, rfc3339
from notifications.models import Notification
from testkit.factories import NotificationFactory

pytestmark = pytest.mark.django_db


def test_notifications_are_the_callers_own_newest_first(
    api: APIClient, user: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    older, newer = NotificationFactory.create_batch(2, user_id=user.pk)
    NotificationFactory.create(user_id=user.pk + 1)
    with django_assert_num_queries(1):
        response = api.get("/api/notifications")
    assert [one["id"] for one in response.json()] == [newer.pk, older.pk]
    assert response.json()[0] == {
        "id": newer.pk,
        "userId": user.pk,
        "type": "ORDER_CREATED",
        "message": "주문이 생성되었습니다.",
        "createdAt": rfc3339(newer.created_at),
        "readAt": None,
        "orderId": newer.order_id,
        "eventId": str(newer.event_id),
    }
    assert "주문이" in response.content.decode()


def test_reading_sets_the_time_and_publishes_once(api: APIClient, user: User) -> None:
    notification = NotificationFactory.create(user_id=user.pk)
    first = api.post(f"/api/notifications/{notification.pk}/read")
    again = api.post(f"/api/notifications/{notification.pk}/read")
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.content == again.content
    read_at = first.json()["readAt"]
    assert read_at == rfc3339(Notification.objects.get().read_at)
    event = OutboxEvent.objects.get()
    assert event.topic == "notification-events"
    assert bytes(event.key or b"") == str(notification.pk).encode()
    assert json.loads(bytes(event.value or b"")) == {
        "eventId": str(event.event_id),
        "eventType": "NOTIFICATION_READ",
        "timestamp": read_at,
        "notificationId": notification.pk,
        "userId": user.pk,
    }
    headers = dict(unpack(event.headers))
    assert headers["ce_source"] == b"/notifications"
    assert headers["ce_type"] == b"NOTIFICATION_READ"
    assert "ce_sequence" not in headers


def test_a_notification_of_another_user_is_not_found(api: APIClient, user: User) -> None:
    notification = NotificationFactory.create(user_id=user.pk + 1)
    assert api.post(f"/api/notifications/{notification.pk}/read").status_code == 404
    assert api.get(f"/api/notifications/{notification.pk}/read").status_code == 405
    assert Notification.objects.get().read_at is None


def listed(api: APIClient, **query: str) -> list[int]:
    response = api.get("/api/notifications", query)
    assert response.status_code == 200, response.content
    return [one["id"] for one in response.json()]


def test_notifications_are_filtered_by_type_and_by_being_unread(api: APIClient, user: User) -> None:
    unread = NotificationFactory.create(user_id=user.pk)
    read = NotificationFactory.create(user_id=user.pk, type="ORDER_PAID", read_at=now())
    assert listed(api) == [read.pk, unread.pk]
    assert listed(api, type="ORDER_PAID") == [read.pk]
    assert listed(api, unread="true") == [unread.pk]
    assert listed(api, unread="false") == [read.pk]
    assert listed(api, unread="true", type="ORDER_PAID") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("type", "ORDER_LOST"), ("type", ""), *(("unread", bad) for bad in ("", "1", "True", "yes", "null", "\0"))],
)
def test_a_bad_filter_is_refused_with_its_name(api: APIClient, name: str, value: str) -> None:
    response = api.get("/api/notifications", {name: value})
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert [error["pointer"] for error in response.json()["errors"]] == [f"/{name}"]


def test_the_next_page_of_notifications_keeps_the_filters(api: APIClient, user: User) -> None:
    older, middle, newer = NotificationFactory.create_batch(3, user_id=user.pk)
    NotificationFactory.create(user_id=user.pk, read_at=now())
    first = api.get("/api/notifications", {"unread": "true", "limit": "2"})
    NotificationFactory.create(user_id=user.pk)
    second = api.get(first["Link"].split(">")[0].removeprefix("<"))
    assert [one["id"] for one in first.json()] == [newer.pk, middle.pk]
    assert [one["id"] for one in second.json()] == [older.pk]
