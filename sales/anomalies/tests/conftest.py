"""Fixtures for the tests of anomalies: a shop with a history, and the database's clock."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from sales.anomalies import judging
from sales.anomalies.series import step_of
from sales.models import SalesBucket

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
NOON_STEP = step_of(NOON)

SetDatabaseClock = Callable[[datetime], None]


@pytest.fixture
def set_database_clock(monkeypatch: pytest.MonkeyPatch) -> SetDatabaseClock:
    """Return a function that sets the time that `judging` reads as the database's current time."""

    def set_database_clock(moment: datetime) -> None:
        monkeypatch.setattr(judging, "database_now", lambda: moment)

    return set_database_clock


def sell(
    start: datetime, end: datetime, *, orders: int, price: int = 10, cancelled: int = 0, generation: int = 0
) -> None:
    """Store the sales of every fifth minute from `start` to before `end`.

    Each of these minutes has `orders` created and `cancelled` cancelled orders. Each order costs `price`.
    Half of the created orders come from partition 1, and all others from partition 0.
    """
    rows = []
    for number in range((end - start) // timedelta(minutes=5)):
        minute = start + number * timedelta(minutes=5)
        for partition, count in ((0, orders // 2), (1, orders - orders // 2)):
            rows.append(_bucket(generation, minute, "ORDER_CREATED", partition, count, price))
        rows.append(_bucket(generation, minute, "ORDER_CANCELLED", 0, cancelled, price))
    SalesBucket.objects.bulk_create([row for row in rows if row.count])


def _bucket(generation: int, minute: datetime, event_type: str, partition: int, count: int, price: int) -> SalesBucket:
    return SalesBucket(
        generation=generation,
        minute=minute,
        event_type=event_type,
        partition=partition,
        count=count,
        amount=Decimal(count * price),
    )


@pytest.fixture
def history(db: None) -> None:
    """Create the sales of three weeks up to `NOON`: ten orders and one cancellation in each step of five minutes."""
    sell(NOON - timedelta(weeks=3), NOON, orders=10, cancelled=1)
