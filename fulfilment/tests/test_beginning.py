"""One SQL statement begins a fulfilment: all of its rows are inserted, or none."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from rest_framework.test import APIClient

from events.models import OutboxEvent
from events.wire.commands import stream_of
from fulfilment.models import Fulfilment, FulfilmentDeadline, FulfilmentStep
from fulfilment.tests.conftest import check_out, place
from orders.models import Order
from orders.services import Change, lock_order, mark_as_cancelled, mark_as_paid, save_changes
from testkit.factories import OutboxEventFactory
from testkit.waiting import a_lock_is_awaited, wait_until

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


@pytest.mark.parametrize(("change", "status"), [(mark_as_paid, "PAID"), (mark_as_cancelled, "CANCELLED")])
def test_an_order_that_changes_meanwhile_is_not_checked_out(
    user: User, change: Callable[[Order], Change], status: str
) -> None:
    order = place(user)

    def request() -> Any:
        api = APIClient()
        api.force_authenticate(user)
        try:
            return check_out(api, order.pk)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other:
        with transaction.atomic():
            locked = lock_order(order_id=order.pk)
            answer = other.submit(request)
            wait_until(a_lock_is_awaited)
            save_changes(change(locked))
        assert answer.result(30).status_code == 409
    assert answer.result().json()["detail"] == f"Order {order.pk} is {status} and cannot be checked out."
    assert not Fulfilment.objects.exists()
    assert not OutboxEvent.objects.filter(event_type="CHARGE_PAYMENT").exists()


def test_of_two_checkouts_at_one_moment_one_is_409(user: User) -> None:
    order = place(user)
    barrier = threading.Barrier(8)
    answers = []

    def request() -> None:
        api = APIClient()
        api.force_authenticate(user)
        barrier.wait()
        answers.append(check_out(api, order.pk).status_code)
        connection.close()

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [202] + [409] * 7
    assert OutboxEvent.objects.filter(event_type="CHARGE_PAYMENT").count() == 1
