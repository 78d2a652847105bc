"""Add a batch of events to both read models, `SalesBucket` and `CustomerSummary`, in one statement."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal, localcontext

import msgspec
from django.db import connection

from orders.events import OrderEventType
from sales.models import EXACT, ZERO
from sales.sums.arrivals import Arrival

# The row of `sales_generations` is locked before any row of a read model, and these are locked in the order of their
# keys. So two consumers cannot deadlock, not even if a rebalance gives both of them the same partition.
ADD = """
    WITH state AS (SELECT live, building FROM sales_generations FOR SHARE),
    target AS (
        SELECT coalesce((SELECT live FROM state), 0) AS generation
        UNION ALL
        SELECT building FROM state WHERE building IS NOT NULL
    ),
    added AS (
        INSERT INTO sales_salesbucket AS bucket (generation, minute, event_type, partition, count, amount)
        SELECT target.generation, new.minute, new.event_type, new.partition, new.count, new.amount
        FROM target, json_to_recordset(%(buckets)s)
            AS new (minute timestamptz, event_type text, partition integer, count bigint, amount numeric)
        ORDER BY 1, 2, 3, 4
        ON CONFLICT (generation, minute, event_type, partition) DO UPDATE
        SET count = bucket.count + EXCLUDED.count, amount = bucket.amount + EXCLUDED.amount
    )
    INSERT INTO sales_customersummary AS summary
        (generation, user_id, partition, orders, paid, cancelled, amount_paid, last_order_at)
    SELECT target.generation, new.user_id, new.partition, new.orders, new.paid, new.cancelled, new.amount_paid,
        new.last_order_at
    FROM target, json_to_recordset(%(summaries)s)
        AS new (user_id bigint, partition integer, orders bigint, paid bigint, cancelled bigint, amount_paid numeric,
            last_order_at timestamptz)
    ORDER BY 1, 2, 3
    ON CONFLICT (generation, user_id, partition) DO UPDATE
    SET orders = summary.orders + EXCLUDED.orders,
        paid = summary.paid + EXCLUDED.paid,
        cancelled = summary.cancelled + EXCLUDED.cancelled,
        amount_paid = summary.amount_paid + EXCLUDED.amount_paid,
        last_order_at = greatest(summary.last_order_at, EXCLUDED.last_order_at)
    """

_encoder = msgspec.json.Encoder()


class BucketRow(msgspec.Struct):
    """The number of events, and the sum of their amounts, that a batch adds to a bucket.

    The fields have the names of the columns.
    """

    minute: datetime
    event_type: OrderEventType
    partition: int
    count: int = 0
    amount: Decimal = ZERO


class SummaryRow(msgspec.Struct):
    """The numbers that a batch adds to the summary of a customer. The fields have the names of the columns."""

    user_id: int
    partition: int
    orders: int = 0
    paid: int = 0
    cancelled: int = 0
    amount_paid: Decimal = ZERO
    last_order_at: datetime | None = None


def add(arrivals: Iterable[Arrival]) -> None:
    """Add the events to both read models, in the caller's transaction.

    The events go into the live generation (the set of rows that readers see), and into the generation that a rebuild
    makes, if any. The rows of each table are one JSON parameter, because psycopg2 would adapt the values of an array
    one by one.
    """
    buckets, summaries = _sum_up(arrivals)
    with connection.cursor() as cursor:
        cursor.execute(
            ADD,
            {"buckets": _encoder.encode(buckets).decode(), "summaries": _encoder.encode(summaries).decode()},
        )


def _sum_up(arrivals: Iterable[Arrival]) -> tuple[list[BucketRow], list[SummaryRow]]:
    buckets: dict[tuple[datetime, OrderEventType, int], BucketRow] = {}
    summaries: dict[tuple[int, int], SummaryRow] = {}
    with localcontext(EXACT):
        for arrival in arrivals:
            event, partition = arrival.event, arrival.partition
            minute = event.timestamp.replace(second=0, microsecond=0)
            bucket_key = minute, event.event_type, partition
            if (bucket := buckets.get(bucket_key)) is None:
                bucket = buckets[bucket_key] = BucketRow(*bucket_key)
            bucket.count += 1
            bucket.amount += event.total_amount
            summary_key = event.user_id, partition
            if (summary := summaries.get(summary_key)) is None:
                summary = summaries[summary_key] = SummaryRow(*summary_key)
            match event.event_type:
                case "ORDER_CREATED":
                    summary.orders += 1
                    if summary.last_order_at is None or event.timestamp > summary.last_order_at:
                        summary.last_order_at = event.timestamp
                case "ORDER_PAID":
                    summary.paid += 1
                    summary.amount_paid += event.total_amount
                case "ORDER_CANCELLED":
                    summary.cancelled += 1
    return list(buckets.values()), list(summaries.values())
