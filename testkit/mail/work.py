"""Leased work (`events.work`) for tests and benchmarks: e-mail deliveries, and workers whose action a test sets."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from events.database_clock import database_now
from events.work.kinds import Act, Kind
from events.work.outcomes import Done, Outcome
from events.work.worker import Worker
from notifications.models import EmailDelivery, Notification
from notifications.work import EMAIL
from orders.events import ORDER_CREATED

Work = EmailDelivery
"""The model of the leased work that these helpers create."""


def record_work(count: int, *, due_in: timedelta = timedelta(0), **fields: Any) -> list[EmailDelivery]:
    """Record `count` pieces of work, and return them in the order of their due times.

    The pieces become due one second apart. The last one becomes due one second before `due_in` has passed. They are
    inserted in reverse order, so that a test fails if a query does not sort them.
    """
    first_due = database_now() + due_in - timedelta(seconds=count)
    notifications = Notification.objects.bulk_create(
        Notification(user_id=1, order_id=n, event_id=uuid4(), type=ORDER_CREATED, message="") for n in range(count)
    )
    rows: Any = EmailDelivery.objects.bulk_create(
        EmailDelivery(notification=one, due_at=first_due + timedelta(seconds=count - n), **fields)
        for n, one in enumerate(notifications, start=1)
    )
    return list(reversed(rows))


def kind(act: Act[EmailDelivery] | None = None, **changes: Any) -> Kind[EmailDelivery]:
    """Return the kind of work `EMAIL` with `changes` to its fields. `act` is its action; the default returns Done."""

    def nothing(work: EmailDelivery) -> Outcome:
        return Done()

    return replace(EMAIL, session=session_of(act or nothing), **changes)


def session_of(act: Act[EmailDelivery]) -> Callable[[], AbstractContextManager[Act[EmailDelivery]]]:
    @contextmanager
    def session() -> Iterator[Act[EmailDelivery]]:
        yield act

    return session


def worker(act: Act[EmailDelivery] | None = None, **changes: Any) -> Worker[EmailDelivery]:
    """Return a worker for the kind of work `kind(act, **changes)`. It does not wait, and is never told to stop.

    Call its `sweep` or `work_off_batch`, because its `run` would never end.
    """
    return Worker(kind(act, **changes), stopping=lambda: False, wait=lambda _: None)
