"""Bytes that an order needs in PostgreSQL and Kafka, measured with the product's processes on the benchmarks' servers.

`python -m benchmarks.scaling --measure` measures them anew and writes `sizes.json`.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import database
from benchmarks.servers import Servers, manage, running
from testkit.customer import Customer
from testkit.kafka_client import read_topic
from testkit.waiting import wait_until

SAVED = Path(__file__).with_name("sizes.json")
CUSTOMERS = 4
TABLES = {
    "order": "orders_order",
    "item": "orders_orderitem",
    "outbox_event": "events_outboxevent",
    "notification": "notifications_notification",
    "inbox_entry": "events_inboxentry",
    "history_event": "orders_orderhistory",
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The bytes that an order needs, measured with orders of one item. Each is placed and paid, and so has two events.

    The bytes of a row are those of its table with all indexes and TOAST after a VACUUM, divided by the number of rows.
    An outbox row includes the space of its first version, because it is updated once. WAL is PostgreSQL's log of
    changes. A field `wal_of_...` has the bytes of WAL that the named part of the work writes for one order.
    """

    orders: int
    """Number of orders that were measured."""
    order: float
    item: float
    outbox_event: float
    notification: float
    inbox_entry: float
    history_event: float
    kafka_record: float
    """Bytes of the key, the value and the headers of an event, on average.

    Compression and Kafka's own bytes in a record and its batch are not counted.
    """
    wal_of_placing_and_paying: float
    """Bytes of WAL per order: of both transactions, and of marking the order's two events as published."""
    wal_of_notifications: float
    wal_of_sales: float
    wal_of_pruning: float


def saved() -> Sizes:
    """Return the sizes of the last measurement."""
    return Sizes(**json.loads(SAVED.read_text()))


def save(sizes: Sizes) -> None:
    SAVED.write_text(json.dumps(asdict(sizes), indent=2) + "\n")


def measure(servers: Servers, *, orders: int) -> Sizes:
    """Measure how many bytes an order needs in PostgreSQL and Kafka, and return the figures.

    The function places and pays `orders` orders. The groups of notifications and sales handle the events, and then the
    events are pruned.
    """
    wal: dict[str, float] = {}

    @contextmanager
    def counted(step: str) -> Iterator[None]:
        before = database.value("SELECT pg_current_wal_insert_lsn()::text")
        yield
        moved = database.value("SELECT pg_current_wal_insert_lsn() - %(before)s::pg_lsn", before=before)
        wal[step] = round(float(moved) / orders, 1)

    # A page's first change after a checkpoint logs the whole page, so no checkpoint may come while WAL is counted.
    for setting in ("checkpoint_timeout = '1h'", "max_wal_size = '8GB'", "autovacuum = off"):
        database.execute(f"ALTER SYSTEM SET {setting}")
    database.execute("SELECT pg_reload_conf()")
    with running(servers.web()) as web:
        customers = [Customer(web.url) for _ in range(CUSTOMERS)]
        database.execute("CHECKPOINT")
        with counted("wal_of_placing_and_paying"):
            _place_and_pay(customers, orders // CUSTOMERS)
            wait_until(lambda: database.pending() == 0)
    with counted("wal_of_notifications"):
        manage("consume_order_events", "--until-caught-up")
    with counted("wal_of_sales"):
        manage("consume", "sales", "--until-caught-up")
    rows = _bytes_of_rows("order", "item", "outbox_event", "notification", "inbox_entry")
    records = [message for message in read_topic("order-events") if message.value]
    with counted("wal_of_pruning"):
        manage("prune_events", "--older-than", "1s")
    return Sizes(
        orders=orders,
        kafka_record=round(
            sum(
                len(record.key or b"")
                + len(record.value or b"")
                + sum(len(name) + len(value or b"") for name, value in record.headers)
                for record in records
            )
            / len(records),
            1,
        ),
        **rows,
        **_bytes_of_rows("history_event"),
        **wal,
    )


def _place_and_pay(customers: Sequence[Customer], each: int) -> None:
    def shop(customer: Customer) -> None:
        for _ in range(each):
            customer.change(customer.place_order()["id"], "pay")

    with ThreadPoolExecutor() as threads:
        list(threads.map(shop, customers))


def _bytes_of_rows(*names: str) -> dict[str, float]:
    sizes = {}
    for name in names:
        table = TABLES[name]
        database.execute(f"VACUUM {table}")
        total, count = database.rows(f"SELECT pg_total_relation_size('{table}'), (SELECT count(*) FROM {table})")[0]
        sizes[name] = round(total / count, 1)
    return sizes
