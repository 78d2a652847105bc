"""Admin's index shows each user the pipeline's summary, latest orders and open dead letters that the user may view."""

import html
import re
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from commerce.admin_site.index import LATEST_ORDERS
from commerce.operations import pipeline
from events.consuming.dead_letters import record_dead_letter
from events.troubles import Poison
from notifications.subscriptions import NOTIFICATIONS
from orders.services import Line, place_order
from testkit.factories import kafka_record

pytestmark = pytest.mark.django_db

PIPELINE = 'class="pipeline-summary"'
CAUSES = "Open letters by cause"
ORDERS = "Latest orders"
PIPELINES = [permission.partition(".")[2] for permission in pipeline.PERMISSIONS]


def place(user: User) -> int:
    return place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("1000.00"))]).order.pk


def index(client: Client) -> str:
    response = client.get("/admin/")
    assert response.status_code == 200
    return response.content.decode()


@pytest.fixture
def letter() -> None:
    record_dead_letter(record=kafka_record(b"garbage"), error=Poison("no event"), group=NOTIFICATIONS.group)


@pytest.mark.parametrize(
    ("permissions", "shown"),
    [
        ([], set()),
        (["view_order"], {ORDERS}),
        (["view_outboxevent"], set()),
        (["view_deadletter"], {CAUSES}),
        (["view_deadletter", "view_outboxevent"], {CAUSES}),
        (["view_deadletter", "view_outboxevent", "view_emaildelivery"], {CAUSES}),
        (PIPELINES, {PIPELINE, CAUSES}),
        ([*PIPELINES, "view_order"], {PIPELINE, CAUSES, ORDERS}),
    ],
)
def test_the_index_shows_what_the_user_may_view(
    client: Client, letter: None, permissions: list[str], shown: set[str]
) -> None:
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(viewer)
    text = index(client)
    assert {part for part in (PIPELINE, CAUSES, ORDERS) if part in text} == shown
    assert ("Choose a page" in text) is not bool(shown)
    links = {href for href in re.findall(r'href="(/admin/[^"#]*)"', html.unescape(text)) if "logout" not in href}
    assert {href: client.get(href).status_code for href in links} == dict.fromkeys(links, 200)


def test_the_index_lists_the_latest_orders(admin_client: Client, user: User) -> None:
    ids = [place(user) for _ in range(LATEST_ORDERS + 1)]
    text = index(admin_client)
    assert [pk for pk in ids if f"/admin/orders/order/{pk}/change/" in text] == ids[1:]
    assert "2,000" in text


def test_more_orders_take_no_more_queries(admin_client: Client, user: User) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            index(admin_client)
        return len(captured)

    place(user)
    few = queries()
    for number in range(4):
        place(User.objects.create_user(f"other-{number}"))
    assert queries() == few


def test_a_cause_links_to_its_letters(admin_client: Client, letter: None) -> None:
    text = index(admin_client)
    (query,) = [one["query"] for one in admin_client.get("/admin/").context["causes"]]
    address = f"/admin/events/deadletter/?{query}"
    assert address.replace("&", "&amp;") in text
    assert admin_client.get(address).context["cl"].result_count == 1
