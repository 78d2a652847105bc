"""`verify_sales` finds each sum that differs from the events, and names the first ten of each kind."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from events.models import OutboxEvent
from events.wire.timestamps import now
from orders.events import ORDER_CREATED, ORDER_PAID
from orders.history import move_to_history
from sales.models import CustomerSummary, Generations, SalesBucket
from sales.tests.shop import foreign, foreign_events, handle, place_orders

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = datetime(2025, 1, 30, 10, 15, tzinfo=UTC)


def verify() -> tuple[str, str]:
    """Run `verify_sales`. Return its output and its error output."""
    out, err = StringIO(), StringIO()
    call_command("verify_sales", stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def refuses() -> tuple[str, str]:
    """Run `verify_sales`, which must fail. Return its output and its error output."""
    out, err = StringIO(), StringIO()
    with pytest.raises(CommandError, match="run rebuild_sales") as refused:
        call_command("verify_sales", stdout=out, stderr=err)
    assert refused.value.returncode == 1
    return out.getvalue(), err.getvalue()


def test_correct_sums_are_counted() -> None:
    handle([foreign(user_id=1, timestamp=MINUTE), foreign(ORDER_PAID, user_id=2, timestamp=MINUTE)])
    handle([foreign(user_id=1, timestamp=MINUTE + timedelta(minutes=1))])
    assert verify() == ("checked 2 customers, wrong 0\nchecked 2 intervals, wrong 0\n", "")


def test_without_events_nothing_is_wrong() -> None:
    assert verify() == ("checked 0 customers, wrong 0\nchecked 0 intervals, wrong 0\n", "")


def test_odd_events_are_compared_exactly() -> None:
    for at in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"):
        for amount in ("99999999999999999999999999.99", "-0.01", "0.00"):
            handle([foreign(timestamp=datetime.fromisoformat(at), total_amount=Decimal(amount)) for _ in range(3)])
    assert "checked 3 intervals, wrong 0" in verify()[0]


def test_a_pruned_outbox_changes_nothing() -> None:
    handle(place_orders(6))
    OutboxEvent.objects.update(published_at=now(), published_partition=0, published_offset=0)
    move_to_history(list(OutboxEvent.objects.values_list("pk", flat=True)))
    assert OutboxEvent.objects.count() == 0
    assert verify()[0].endswith("wrong 0\n")


@pytest.mark.parametrize("change", [{"count": 2}, {"amount": Decimal("50000.01")}, {"event_type": "ORDER_PAID"}])
def test_a_changed_bucket_is_named(change: dict[str, object]) -> None:
    handle([foreign(timestamp=MINUTE), foreign(timestamp=MINUTE + timedelta(hours=1))])
    SalesBucket.objects.filter(minute=MINUTE).update(**change)
    out, err = refuses()
    assert out.endswith("checked 2 intervals, wrong 1\n")
    assert "2025-01-30T10:15:00.000Z ORDER_CREATED: the table has " in err
    assert "and the events say 1 of 50000.00" in err


def test_a_missing_and_an_extra_bucket_are_named() -> None:
    handle([foreign(timestamp=MINUTE)])
    SalesBucket.objects.all().delete()
    SalesBucket.objects.create(
        generation=0, minute=MINUTE + timedelta(days=1), event_type=ORDER_CREATED, partition=9, count=1, amount=5
    )
    out, err = refuses()
    assert out.endswith("checked 2 intervals, wrong 2\n")
    assert "2025-01-30T10:15:00.000Z ORDER_CREATED: the table has 0 of 0.00, and the events say 1 of 50000.00" in err
    assert "2025-01-31T10:15:00.000Z ORDER_CREATED: the table has 1 of 5.00, and the events say 0 of 0.00" in err


@pytest.mark.parametrize(
    "change",
    [{"orders": 2}, {"paid": 1}, {"cancelled": 1}, {"amount_paid": 1}, {"last_order_at": MINUTE}, {"user_id": 8}],
)
def test_a_changed_summary_is_named(change: dict[str, object]) -> None:
    handle([foreign(user_id=7)])
    CustomerSummary.objects.update(**change)
    out, err = refuses()
    assert "intervals, wrong 0" in out
    assert "user 7: the table has " in err


def test_only_the_live_generation_is_compared() -> None:
    handle(foreign_events(5))
    SalesBucket.objects.create(generation=9, minute=MINUTE, event_type=ORDER_CREATED, partition=0, count=1, amount=1)
    assert verify()[0].endswith("wrong 0\n")


def test_at_most_ten_wrong_sums_of_each_kind_are_named() -> None:
    handle([foreign(user_id=number, timestamp=MINUTE + timedelta(minutes=number)) for number in range(15)])
    SalesBucket.objects.update(count=5)
    CustomerSummary.objects.update(paid=5)
    out, err = refuses()
    assert out == "checked 15 customers, wrong 15\nchecked 15 intervals, wrong 15\n"
    assert len(err.splitlines()) == 20


def test_lost_events_are_explained() -> None:
    handle(place_orders(1))
    lost = OutboxEvent.objects.count()
    OutboxEvent.objects.all().delete()
    _, err = refuses()
    assert f"No copy is left of {lost} handled events" in err


def test_a_killed_rebuild_is_named() -> None:
    handle(foreign_events(5))
    Generations.objects.create(live=0, building=1, latest=1)
    out, err = verify()
    assert "intervals, wrong 0" in out
    assert "A rebuild was killed" in err
