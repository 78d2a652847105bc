"""A rebuild makes the same sums anew, while consumers and readers go on."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from events.models import InboxEntry, OutboxEvent
from sales.intervals import Intervals
from sales.models import CustomerSummary, ForeignEvent, Generations, SalesBucket
from sales.series import read_series, read_summary
from sales.subscriptions import SALES
from sales.sums import recounting
from sales.sums.rebuilding import AlreadyRunning, EventsLost, rebuild
from sales.tests.shop import foreign, foreign_events, handle, place_orders, sums, sums_of_history
from testkit.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

DAY = Intervals.touching(datetime(2025, 1, 30, tzinfo=UTC), datetime(2025, 1, 31, tzinfo=UTC), unit="day")


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recounting, "STEP_EVENTS", 7)


def ignore(done: float) -> None:
    """Do nothing: the test ignores the progress of the rebuild."""


def generations() -> set[int]:
    """Return the generations (see `sales.models`) that have rows in the read models."""
    return {
        *SalesBucket.objects.values_list("generation", flat=True),
        *CustomerSummary.objects.values_list("generation", flat=True),
    }


def verified() -> str:
    out = StringIO()
    call_command("verify_sales", stdout=out)
    return out.getvalue()


def test_a_rebuild_changes_no_correct_sum() -> None:
    values = [*place_orders(20), *foreign_events(30)]
    for start in range(0, len(values), 9):
        handle(values[start : start + 9], partition=start % 3)
    before = sums(), sums("sales_customersummary")
    parts: list[float] = []
    assert rebuild(report=parts.append) == len(values)
    assert (sums(), sums("sales_customersummary")) == before
    assert set(SalesBucket.objects.values_list("partition", flat=True)) == {-1}
    assert parts == sorted(parts)
    assert len(parts) > 5
    assert parts[-1] == 1
    assert generations() == {Generations.objects.get().live}


def test_a_rebuild_mends_what_was_changed_by_hand() -> None:
    handle([*place_orders(6), *foreign_events(10)])
    before = sums(), sums("sales_customersummary")
    SalesBucket.objects.update(count=7, amount=Decimal("0.01"))
    CustomerSummary.objects.all().delete()
    rebuild(report=ignore)
    assert (sums(), sums("sales_customersummary")) == before


def test_a_rebuild_without_events_is_empty() -> None:
    assert rebuild(report=ignore) == 0
    assert sums() == {}


def test_events_that_were_not_handled_are_not_counted() -> None:
    """A rebuild leaves out events that the group has not handled. They are counted when the group handles them."""
    values = place_orders(10)
    handle(values[:5])
    assert rebuild(report=ignore) == 5
    handle(values)
    assert sums() == sums_of_history()


def test_a_copy_of_a_forged_event_is_counted_once() -> None:
    """The group handles an event that this site has not recorded. Then the outbox gets a row with the same identity."""
    (value,) = [foreign(order_id=5, user_id=6)]
    handle([value])
    before = sums()
    event_id = ForeignEvent.objects.get().event_id
    OutboxEvent.objects.create(
        event_id=event_id,
        event_type="ORDER_CREATED",
        topic="order-events",
        value=value,
        headers=b"\x90",
        stream="order-5",
        sequence=1,
        created_at=datetime.now(UTC),
    )
    assert rebuild(report=ignore) == 1
    assert sums() == before


@contextmanager
def running(work: Callable[[], object]) -> Iterator[None]:
    """Repeat `work` in a thread within the block. At the end, raise the error of `work`, if there was one."""
    ending = threading.Event()

    def repeat() -> None:
        try:
            while not ending.is_set():
                work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        repeated = thread.submit(repeat)
        try:
            yield
        finally:
            ending.set()
        repeated.result()


class Load:
    """Adds batches of events as consumers do.

    `committed` is the number of events that are surely added. `begun` also counts those of batches in progress.
    """

    AMOUNT = Decimal("12.34")
    CUSTOMER = 1

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.committed = 0
        self.begun = 0

    def has_committed(self, number: int) -> bool:
        return self.committed >= number

    def batch(self, partition: int) -> None:
        size = 4
        with self._lock:
            self.begun += size
        at = datetime(2025, 1, 30, 10, partition, tzinfo=UTC)
        new = [foreign(timestamp=at, user_id=self.CUSTOMER, total_amount=self.AMOUNT) for _ in range(size)]
        handle(new, partition=partition)
        with self._lock:
            self.committed += size


def test_readers_see_only_true_sums_during_rebuilds() -> None:
    """While two consumers add events and a reader polls, rebuilds run one after another."""
    handle(foreign_events(60))
    (at_first,) = read_series(DAY)
    load, reads, summaries = Load(), [], [0]

    def poll() -> None:
        at_least = 60 + load.committed
        (day,) = read_series(DAY)
        at_most = 60 + load.begun
        found = day.created.number + day.paid.number + day.cancelled.number
        reads.append(found)
        assert at_least <= found <= at_most
        added = day.created.number - at_first.created.number
        assert day.created.amount == at_first.created.amount + added * Load.AMOUNT
        summaries.append(read_summary(Load.CUSTOMER).orders)
        assert summaries[-2] <= summaries[-1] <= load.begun

    with running(lambda: load.batch(0)), running(lambda: load.batch(1)), running(poll):
        for _ in range(6):
            goal = load.committed + 8
            rebuild(report=ignore)
            wait_until(partial(load.has_committed, goal))
    assert len(reads) > 20
    assert reads[-1] > reads[0]
    assert summaries[-1] > 0
    assert "wrong 0\nchecked" in verified()
    assert len(generations()) == 1


def test_a_second_rebuild_is_refused_and_harms_nothing() -> None:
    handle(foreign_events(30))
    before = sums()
    refused: list[bool] = []

    def start_another(done: float) -> None:
        if refused:
            return
        refused.append(False)
        with ThreadPoolExecutor(1) as thread, pytest.raises(AlreadyRunning):
            thread.submit(_rebuild_in_thread).result()
        refused[0] = True

    assert rebuild(report=start_another) == 30
    assert refused == [True]
    assert sums() == before
    assert Generations.objects.get().building is None


def _rebuild_in_thread() -> None:
    try:
        rebuild(report=ignore)
    finally:
        connection.close()


def test_a_consumer_in_a_transaction_delays_the_snapshot() -> None:
    """The snapshot contains the events of that transaction. Otherwise the new sums would lack them."""
    handle(foreign_events(5))
    added, may_commit = threading.Event(), threading.Event()

    def add_slowly() -> None:
        try:
            with transaction.atomic():
                handle(foreign_events(3, seed=2))
                added.set()
                assert may_commit.wait(30)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(add_slowly)
        assert added.wait(30)
        rebuilding = threads.submit(_rebuild_in_thread)
        wait_until(_a_lock_is_awaited)
        may_commit.set()
        slow.result()
        rebuilding.result()
    assert sum(count for count, _ in sums().values()) == 8


def _a_lock_is_awaited() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ExclusiveLock'"
            " AND relation = 'sales_generations'::regclass"
        )
        return bool(cursor.fetchone()[0])


def test_a_failed_rebuild_leaves_the_sums() -> None:
    handle(foreign_events(30))

    def fail(done: float) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        rebuild(report=fail)
    handle([foreign()])
    assert Generations.objects.get().building is None
    assert sum(count for count, _ in sums().values()) == 31
    assert generations() == {0}


def test_events_without_a_copy_are_not_dropped_silently() -> None:
    handle([*place_orders(4), *foreign_events(3)])
    before = sums()
    lost = OutboxEvent.objects.count()
    OutboxEvent.objects.all().delete()
    with pytest.raises(EventsLost) as refused:
        rebuild(report=ignore)
    assert refused.value.number == lost
    assert sums() == before
    with pytest.raises(CommandError, match=rf"No copy is left of {lost} handled events.*--drop-lost"):
        call_command("rebuild_sales")
    call_command("rebuild_sales", "--drop-lost")
    assert sum(count for count, _ in sums().values()) == 3


def test_another_group_of_the_inbox_does_not_count() -> None:
    values = place_orders(4)
    handle(values[:2])
    for entry in InboxEntry.objects.filter(group=SALES.group):
        InboxEntry.objects.create(
            group="audit",
            event_id=entry.event_id,
            event_type=entry.event_type,
            stream=entry.stream,
            owner=entry.owner,
            handled_at=entry.handled_at,
        )
    assert rebuild(report=ignore) == 2


def test_the_command_says_how_many_events_it_counted() -> None:
    handle(foreign_events(12))
    out = StringIO()
    call_command("rebuild_sales", stdout=out)
    assert re.fullmatch(r"rebuilt from 12 events\n", out.getvalue())
