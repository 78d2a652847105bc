"""One SQL statement begins a fulfilment: all of its rows are inserted, or none."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connection
from rest_framework.test import APIClient

from events.models import OutboxEvent
from events.wire.commands import stream_of
from fulfilment.models import Fulfilment, FulfilmentDeadline, FulfilmentStep
from fulfilment.tests.conftest import check_out, place
from testkit.factories import OutboxEventFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _own_connection() -> Iterator[None]:
    connection.close()
    yield
    connection.close()


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def begin(api: APIClient, user: User) -> None:
    """Check out a new order, and check the rows that were inserted."""
    order = place(user)
    assert check_out(api, order.pk).status_code == 202
    fulfilment = Fulfilment.objects.get(pk=order.pk)
    (step,) = fulfilment.begun_steps
    assert (step.step, step.state, step.attempts, step.number, step.reason) == ("PAYMENT", "WAITING", 1, 1, "")
    assert not step.by_hand
    deadline = FulfilmentDeadline.objects.get(fulfilment=fulfilment)
    assert deadline.at == deadline.due_at == fulfilment.deadline_at == step.at + step.timeout
    assert deadline.state == FulfilmentDeadline.State.PENDING
    assert fulfilment.created_at == fulfilment.changed_at == step.at
    assert OutboxEvent.objects.get(stream=stream_of(order.pk)).sequence == fulfilment.last_sequence == 1


def test_a_fulfilment_whose_command_is_refused_does_not_begin(api: APIClient, user: User) -> None:
    order = place(user)
    cause = OutboxEventFactory.create(stream=stream_of(order.pk), sequence=1)
    assert check_out(api, order.pk).status_code == 500
    for model in (Fulfilment, FulfilmentStep, FulfilmentDeadline):
        assert not model.objects.exists()
    cause.delete()
    assert check_out(api, order.pk).status_code == 202


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (
            "ALTER TABLE fulfilment_fulfilmentstep ALTER state TYPE text",
            "ALTER TABLE fulfilment_fulfilmentstep ALTER state TYPE varchar(7)",
        ),
        (
            "ALTER TABLE fulfilment_fulfilment ALTER reason TYPE varchar(500)",
            "ALTER TABLE fulfilment_fulfilment ALTER reason TYPE text",
        ),
        ("ALTER TABLE orders_order ALTER status TYPE text", "ALTER TABLE orders_order ALTER status TYPE varchar(9)"),
        ("ALTER TABLE fulfilment_fulfilment ADD trial text", "ALTER TABLE fulfilment_fulfilment DROP trial"),
        ("DISCARD ALL", "SELECT 1"),
    ],
)
def test_orders_are_checked_out_while_the_schema_changes(api: APIClient, user: User, change: str, undo: str) -> None:
    # PostgreSQL makes a plan for any parameters after the fifth execution.
    for _ in range(7):
        begin(api, user)
    run(change)
    try:
        begin(api, user)
        begin(api, user)
    finally:
        run(undo)
    begin(api, user)
