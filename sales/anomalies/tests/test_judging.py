"""Each step of five minutes is judged once, when the grace period after its end is over.

Its anomalies, their events and the new position of the watch commit together.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, connections, transaction
from pytest_django import DjangoAssertNumQueries

from events.models import OutboxEvent
from sales.anomalies import judging
from sales.anomalies.judging import CATCH_UP_STEPS, Judgement, closed_end, judge_until
from sales.anomalies.models import AnomalyWatch, SalesAnomaly
from sales.anomalies.reading import read_series
from sales.anomalies.series import HOUR, Sales, start_of
from sales.anomalies.tests.conftest import NOON, NOON_STEP, SetDatabaseClock, sell
from sales.models import Generations, SalesBucket

QUARTER = timedelta(minutes=15)


@pytest.fixture
def watch(history: None, set_database_clock: SetDatabaseClock) -> AnomalyWatch:
    """Set the clock to two hours after noon. Return a watch that has judged the steps up to noon."""
    set_database_clock(NOON + timedelta(hours=2))
    return AnomalyWatch.objects.create(judged_until=NOON)


def judged(end: int) -> Judgement:
    judgement = judge_until(end)
    assert judgement is not None
    return judgement


def anomalies() -> list[tuple[str, object, object]]:
    return list(SalesAnomaly.objects.order_by("id").values_list("rule", "started_at", "ended_at"))


def test_surge_gets_one_row_and_one_event(watch: AnomalyWatch) -> None:
    sell(NOON, NOON + QUARTER, orders=50)
    judgement = judged(NOON_STEP + 3)
    assert judgement.steps == 3
    anomaly = SalesAnomaly.objects.get()
    assert (anomaly.rule, anomaly.started_at, anomaly.ended_at) == ("SURGE", NOON, NOON + QUARTER)
    assert (anomaly.observed, anomaly.usual) == (Decimal(1500), Decimal(300))
    row = OutboxEvent.objects.get()
    assert [event.event_id for event in judgement.events] == [row.event_id] == [anomaly.event_id]
    assert (row.topic, row.event_type) == ("sales-events", "SALES_ANOMALY_DETECTED")
    assert json.loads(bytes(row.value or b"")) == {
        "eventId": str(anomaly.event_id),
        "eventType": "SALES_ANOMALY_DETECTED",
        "timestamp": "2026-03-02T14:00:00.000Z",
        "anomalyId": anomaly.pk,
        "rule": "SURGE",
        "from": "2026-03-02T12:00:00.000Z",
        "to": "2026-03-02T12:15:00.000Z",
        "observed": 1500.00,
        "usual": 300.00,
    }
    assert b'"observed":1500.00,"usual":300.00' in bytes(row.value or b"")


def test_wave_of_cancellations_is_found(watch: AnomalyWatch) -> None:
    sell(NOON, NOON + QUARTER, orders=10, cancelled=8)
    judged(NOON_STEP + 3)
    assert anomalies() == [("CANCELLATIONS", NOON, NOON + QUARTER)]
    assert SalesAnomaly.objects.get().observed == Decimal("0.8")


def test_silence_is_one_anomaly_however_long_it_lasts(watch: AnomalyWatch) -> None:
    for end in range(NOON_STEP + 1, NOON_STEP + 2 * HOUR):
        judged(end)
    assert anomalies() == [("SILENCE", NOON, NOON + timedelta(minutes=10))]
    assert OutboxEvent.objects.count() == 1


def test_usual_sales_are_no_anomaly(watch: AnomalyWatch) -> None:
    sell(NOON, NOON + timedelta(hours=1), orders=12, cancelled=1)
    assert judged(NOON_STEP + HOUR) == Judgement(HOUR, [])
    assert not SalesAnomaly.objects.exists()


def test_steps_are_judged_once(watch: AnomalyWatch) -> None:
    sell(NOON, NOON + QUARTER, orders=50)
    judged(NOON_STEP + 3)
    assert judged(NOON_STEP + 3) == Judgement(0, [])
    assert judged(NOON_STEP + 2) == Judgement(0, []), "An earlier end moves the position back to nowhere"
    watch.refresh_from_db()
    assert watch.judged_until == NOON + QUARTER


def test_late_event_changes_the_sums_and_no_verdict(watch: AnomalyWatch) -> None:
    judged(NOON_STEP + 3)
    found = anomalies()
    sell(NOON, NOON + QUARTER, orders=500)
    judged(NOON_STEP + 6)
    assert anomalies()[: len(found)] == found
    assert all(started_at != NOON or rule == "SILENCE" for rule, started_at, _ in anomalies())


def test_first_turn_judges_nothing(history: None, set_database_clock: SetDatabaseClock) -> None:
    set_database_clock(NOON + timedelta(hours=2))
    assert judged(NOON_STEP + HOUR) == Judgement(0, [])
    assert AnomalyWatch.objects.get().judged_until == start_of(NOON_STEP + HOUR)


def test_outage_is_caught_up_once(watch: AnomalyWatch) -> None:
    sell(NOON, NOON + timedelta(hours=1), orders=10)
    sell(NOON + timedelta(hours=1), NOON + timedelta(hours=1) + QUARTER, orders=50)
    sell(NOON + timedelta(hours=1) + QUARTER, NOON + timedelta(hours=2), orders=10)
    assert judged(NOON_STEP + 2 * HOUR).steps == 2 * HOUR
    assert anomalies() == [("SURGE", NOON + timedelta(hours=1), NOON + timedelta(hours=1) + QUARTER)]


def test_long_outage_is_caught_up_by_a_bounded_number_of_steps(
    history: None, set_database_clock: SetDatabaseClock
) -> None:
    set_database_clock(NOON + timedelta(hours=2))
    AnomalyWatch.objects.create(judged_until=NOON - timedelta(days=400))
    assert judged(NOON_STEP).steps == CATCH_UP_STEPS
    assert AnomalyWatch.objects.get().judged_until == NOON


def test_clock_that_was_ahead_stops_no_judgement(watch: AnomalyWatch, set_database_clock: SetDatabaseClock) -> None:
    set_database_clock(NOON + timedelta(days=3650))
    judged(closed_end())
    set_database_clock(NOON + timedelta(hours=1))
    judged(closed_end())
    assert AnomalyWatch.objects.get().judged_until == start_of(closed_end())
    sell(start_of(closed_end()), start_of(closed_end()) + QUARTER, orders=60)
    before = len(anomalies())
    set_database_clock(NOON + timedelta(hours=1, minutes=20))
    judged(closed_end())
    assert len(anomalies()) == before + 1


def test_clock_that_goes_back_doubles_nothing(watch: AnomalyWatch, set_database_clock: SetDatabaseClock) -> None:
    sell(NOON, NOON + QUARTER, orders=50)
    for minutes in (20, 10, 20, 3, 20):
        set_database_clock(NOON + timedelta(minutes=minutes))
        judged(closed_end())
    assert [rule for rule, *_ in anomalies()] == ["SURGE"]
    assert OutboxEvent.objects.count() == 1


def test_death_before_the_commit_loses_and_doubles_nothing(
    watch: AnomalyWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    sell(NOON, NOON + QUARTER, orders=50)

    class Death(BaseException):
        pass

    def die(*arguments: object, **options: object) -> None:
        raise Death

    with monkeypatch.context() as dying:
        dying.setattr(AnomalyWatch, "save", die)
        with pytest.raises(Death):
            judge_until(NOON_STEP + 3)
    assert not SalesAnomaly.objects.exists()
    assert not OutboxEvent.objects.exists()
    judged(NOON_STEP + 3)
    assert SalesAnomaly.objects.count() == OutboxEvent.objects.count() == 1


def test_row_that_stands_already_gets_no_second_event(watch: AnomalyWatch) -> None:
    sell(NOON, NOON + QUARTER, orders=50)
    judged(NOON_STEP + 3)
    AnomalyWatch.objects.update(judged_until=NOON)
    assert judged(NOON_STEP + 3).events == []
    assert SalesAnomaly.objects.count() == OutboxEvent.objects.count() == 1


@pytest.fixture
def other_watcher() -> Iterator[None]:
    """Let another connection hold the row lock that a watcher takes for its turn."""
    other = connections.create_connection("default")
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT id FROM sales_anomalywatch FOR UPDATE")
        yield
    finally:
        other.rollback()
        other.close()


@pytest.mark.django_db(transaction=True)
class TestTwoWatchers:
    @pytest.fixture(autouse=True)
    def _shop(self, transactional_db: None, set_database_clock: SetDatabaseClock) -> None:
        set_database_clock(NOON + timedelta(hours=2))
        sell(NOON - timedelta(weeks=3), NOON, orders=10)
        sell(NOON, NOON + QUARTER, orders=50)
        AnomalyWatch.objects.create(judged_until=NOON)

    def test_watcher_leaves_the_steps_to_the_one_in_its_turn(self, other_watcher: None) -> None:
        assert judge_until(NOON_STEP + 3) is None
        assert not SalesAnomaly.objects.exists()

    def test_row_of_another_watcher_is_not_repeated(self) -> None:
        """Even if two watchers judge without the lock, the unique constraint leaves one row and one event."""
        assert judged(NOON_STEP + 3).events
        with transaction.atomic():
            assert list(judging._record_anomalies(NOON_STEP, NOON_STEP + 3)) == []
        assert OutboxEvent.objects.count() == 1


def test_series_reads_the_live_generation_alone(db: None) -> None:
    sell(NOON, NOON + QUARTER, orders=3, cancelled=1, generation=1)
    sell(NOON, NOON + QUARTER, orders=9, generation=2)
    Generations.objects.update_or_create(id=1, defaults={"live": 1, "building": 2, "latest": 2})
    assert read_series(judged_from=NOON_STEP, end=NOON_STEP + 3).sum(NOON_STEP, NOON_STEP + 3) == Sales(9, 9_000, 3)


def test_series_is_read_by_one_query(history: None, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1):
        read_series(judged_from=NOON_STEP, end=NOON_STEP + 3)


@pytest.mark.parametrize("year", [1, 9999])
def test_events_of_any_year_and_amount_are_judged(watch: AnomalyWatch, year: int) -> None:
    """A sale in a distant year and one of a huge amount raise no error when other steps are judged.

    The judgement finds the surge in these other steps, and nothing else.
    """
    SalesBucket.objects.create(
        generation=0, minute=NOON.replace(year=year), event_type="ORDER_CREATED", partition=0, count=1, amount=-5
    )
    SalesBucket.objects.create(
        generation=0, minute=NOON - timedelta(days=1), event_type="ORDER_CREATED", partition=7, count=1, amount=10**26
    )
    sell(NOON, NOON + QUARTER, orders=50)
    judged(NOON_STEP + 3)
    assert anomalies() == [("SURGE", NOON, NOON + QUARTER)]


def test_database_refuses_an_interval_that_ends_before_it_starts(db: None) -> None:
    match = "sales_anomaly_ends_after_start"
    with pytest.raises(IntegrityError, match=match), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            judging.INSERT,
            {
                "rule": "SURGE",
                "started_at": NOON,
                "ended_at": NOON,
                "observed": 1,
                "usual": 1,
                "detected_at": NOON,
                "event_id": "5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55",
            },
        )
