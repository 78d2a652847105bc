"""The event store reads the outbox and the history. Rows move to the history unchanged, and do not change in it."""

from decimal import Decimal
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import IntegrityError, OperationalError, connection, transaction

from events.models import OutboxEvent
from events.wire.messages import Message
from events.wire.timestamps import now
from orders.history import RECORDED_EVENTS, maintenance, move_to_history, send_again_from_history
from orders.models import Order, OrderHistory, OrderItem
from orders.services import Line, cancel_order, pay_order, place_order
from testkit.factories import OutboxEventFactory

pytestmark = pytest.mark.django_db

FILL = """
    INSERT INTO {table} (id, event_id, event_type, topic, value, headers, stream, sequence, created_at, recorded_at,
                         published_at, published_partition, published_offset {more})
    SELECT n, gen_random_uuid(), 'ORDER_CREATED', 'order-events', '{{}}', '', 'order-' || n, 1, now(), now(),
           now(), 0, n {values}
    FROM generate_series({first}, {last}) AS n
    """


@pytest.mark.parametrize(
    ("condition", "column"),
    [
        ("WHERE id BETWEEN 500 AND 600", "id >= 500"),
        ("WHERE event_id = '5f0c7a3e-0c1e-4d6b-9a43-1f3a8a7f7c55'", "event_id ="),
        ("JOIN unnest(array_fill(gen_random_uuid(), ARRAY[9])) AS wanted ON event_id = wanted", "event_id ="),
        ("WHERE stream = 'order-5'", "stream)::text ="),
        ("JOIN generate_series(1, 9) AS n ON stream = 'order-' || n", "stream)::text ="),
    ],
)
def test_conditions_use_the_indexes_of_both_tables(condition: str, column: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(FILL.format(table="orders_orderhistory", more="", values="", first=1, last=3000))
        of_outbox = {"table": "events_outboxevent", "more": ", parked_reason", "values": ", ''"}
        cursor.execute(FILL.format(**of_outbox, first=3001, last=6000))
        cursor.execute("ANALYZE orders_orderhistory, events_outboxevent")
        cursor.execute(f"EXPLAIN SELECT * FROM ({RECORDED_EVENTS}) AS recorded {condition}")
        plan = [line for (line,) in cursor]
    assert len([line for line in plan if "Index Cond" in line and column in line]) == 2, "\n".join(plan)
    assert not [line for line in plan if "Seq Scan" in line]


GUARDED = ("orders_orderhistory", "orders_orderitem")


@pytest.fixture
def moved(user: User) -> Order:
    """Return a paid order whose events were moved to the history."""
    order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    paid = pay_order(order_id=order.pk).order
    rows = OutboxEvent.objects.filter(stream=order.stream)
    rows.update(published_at=now(), published_path="fast", published_partition=2, published_offset=7)
    assert move_to_history(list(rows.values_list("pk", flat=True))) == 2
    return paid


def run_sql(sql: str, *, in_maintenance: bool = False) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        if in_maintenance:
            cursor.execute("SET LOCAL commerce.maintenance = 'on'")
        cursor.execute(sql)
        return int(cursor.rowcount)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE orders_orderhistory SET value = '{}'",
        "UPDATE orders_orderhistory SET sequence = sequence + 10 WHERE sequence = 2",
        "DELETE FROM orders_orderhistory WHERE sequence = 1",
        "TRUNCATE orders_orderhistory",
        "UPDATE orders_orderitem SET price = 1",
        "UPDATE orders_orderitem SET quantity = quantity",
        "DELETE FROM orders_orderitem",
        "TRUNCATE orders_orderitem",
        "INSERT INTO orders_orderitem SELECT * FROM orders_orderitem ON CONFLICT (id) DO UPDATE SET quantity = 9",
    ],
)
def test_sql_changes_history_and_items_in_maintenance_only(moved: Order, sql: str) -> None:
    with pytest.raises(IntegrityError, match="is refused: the history and the items of orders never change"):
        run_sql(sql)
    run_sql(sql, in_maintenance=True)
    # SET LOCAL has ended with its transaction.
    with pytest.raises(IntegrityError, match="is refused"):
        run_sql(sql)


@pytest.mark.parametrize("said", ["off", "", "ON", "true"])
def test_only_the_exact_word_is_maintenance(moved: Order, said: str) -> None:
    with pytest.raises(IntegrityError, match="is refused"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('commerce.maintenance', %s, TRUE)", [said])
        cursor.execute("DELETE FROM orders_orderhistory")


def test_the_orm_is_refused_too(moved: Order) -> None:
    item, event = OrderItem.objects.get(), OrderHistory.objects.first()
    for change in (item.save, item.delete, event.delete, OrderHistory.objects.all().delete):
        with pytest.raises(IntegrityError, match="is refused"), transaction.atomic():
            change()


def test_maintenance_ends_with_its_block(moved: Order) -> None:
    with transaction.atomic():
        with maintenance():
            with maintenance():
                OrderItem.objects.update(quantity=3)
            OrderItem.objects.update(quantity=4)
        with pytest.raises(IntegrityError, match="is refused"), transaction.atomic():
            OrderItem.objects.update(quantity=5)
        with pytest.raises(ZeroDivisionError), maintenance():
            raise ZeroDivisionError
        with pytest.raises(IntegrityError, match="is refused"), transaction.atomic():
            OrderItem.objects.update(quantity=5)
    assert OrderItem.objects.get().quantity == 4


def test_orders_are_placed_paid_and_cancelled_beside_triggers(moved: Order) -> None:
    cancel_order(order_id=moved.pk)
    assert place_order(user_id=moved.user_id, lines=[Line(1, 1, Decimal(1))]).order.lines[0].pk


def test_a_moved_row_keeps_every_column(user: User) -> None:
    order = place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))]).order
    position = {"published_path": "relay", "published_partition": 2, "published_offset": 7}
    OutboxEvent.objects.update(published_at=now(), partition=2, **position)
    columns = [field.attname for field in OrderHistory._meta.fields]
    before = OutboxEvent.objects.values(*columns).get()
    assert move_to_history([before["id"]]) == 1
    assert not OutboxEvent.objects.exists()
    assert OrderHistory.objects.values(*columns).get() == before
    assert before["stream"] == order.stream


def test_rows_that_are_no_history_are_not_moved(moved: Order) -> None:
    """A row is not moved if it is pending, has no stream, or belongs to a stream of another app.

    A row that shares a unique key with a row of the history is not moved either.
    """
    taken = OrderHistory.objects.first()
    pending = OutboxEventFactory.create(stream="order-77", sequence=1)
    position = {"published_at": now(), "published_partition": 0, "published_offset": 0}
    others = [
        pending,
        OutboxEventFactory.create(**position),
        OutboxEventFactory.create(stream="orders-1", sequence=1, **position),
        OutboxEventFactory.create(stream=taken.stream, sequence=taken.sequence, **position),
        OutboxEventFactory.create(stream="order-78", sequence=1, event_id=taken.event_id, **position),
        OutboxEventFactory.create(stream="order-79", sequence=1, id=taken.pk, **position),
    ]
    assert move_to_history([row.pk for row in others]) == 0
    assert OutboxEvent.objects.count() == len(others)
    assert OrderHistory.objects.count() == 2


def test_recorded_events_have_each_event_once(moved: Order) -> None:
    cancel_order(order_id=moved.pk)
    OutboxEventFactory.create()
    OutboxEventFactory.create(stream="parcel-1", sequence=1)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT stream, sequence FROM ({RECORDED_EVENTS}) AS recorded ORDER BY sequence")
        assert cursor.fetchall() == [(moved.stream, number) for number in (1, 2, 3)]


def test_an_event_is_sent_again_from_the_history(moved: Order) -> None:
    columns = [*Message._fields, "id"]
    first = OrderHistory.objects.get(sequence=1)
    assert send_again_from_history([first.event_id, uuid4()]) == 1
    row = OutboxEvent.objects.pending().get()
    assert {name: getattr(row, name) for name in columns if name != "dead_letter_id"} == {
        name: getattr(first, name) for name in columns if name != "dead_letter_id"
    }
    assert row.recorded_at > first.recorded_at
    assert OrderHistory.objects.get().sequence == 2


@pytest.mark.django_db(transaction=True)
def test_the_migrations_go_back_and_forth(user: User) -> None:
    """Migrating back leads to a release without the history. The rows of the history are lost, and the orders stay."""
    place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])
    try:
        call_command("migrate", "orders", "0006", verbosity=0)
        OrderItem.objects.update(quantity=3)
        call_command("migrate", "orders", "0005", verbosity=0)
        assert not set(GUARDED[:1]) & set(connection.introspection.table_names())
        OrderItem.objects.update(quantity=2)
        # Backwards and forwards twice: nothing of the first time is left over.
        call_command("migrate", "orders", verbosity=0)
        call_command("migrate", "orders", "0005", verbosity=0)
    finally:
        call_command("migrate", "orders", verbosity=0)
    with pytest.raises(IntegrityError, match="is refused"):
        OrderItem.objects.update(quantity=5)
    assert not OrderHistory.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_triggers_give_up_while_a_writer_holds_its_lock(user: User) -> None:
    """The migration that creates the triggers fails if it waits too long for a transaction that writes to the table.

    New orders wait behind the migration, so it waits only a few seconds.
    """
    place_order(user_id=user.pk, lines=[Line(1, 2, Decimal("100.00"))])
    call_command("migrate", "orders", "0006", verbosity=0)
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("LOCK TABLE orders_orderitem IN ROW EXCLUSIVE MODE")
            with pytest.raises(OperationalError, match="lock timeout"):
                call_command("migrate", "orders", verbosity=0)
            cursor.execute("ROLLBACK")
    finally:
        other.close()
        call_command("migrate", "orders", verbosity=0)
    with pytest.raises(IntegrityError, match="is refused"):
        OrderItem.objects.update(quantity=5)
