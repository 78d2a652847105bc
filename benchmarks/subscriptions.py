"""Register one of `SUBSCRIPTIONS` for the consumers of a benchmark.

The environment variable `BENCH_SUBSCRIPTION` has its key, and `BENCH_GROUP` has the name of its consumer group.
"""

import os
from dataclasses import replace
from typing import Any

from events.subscriptions import Subscription, register
from notifications.subscriptions import notify
from orders.events import ORDER_EVENTS, decode
from sales.subscriptions import SALES

GROUP = os.environ["BENCH_GROUP"]
SUBSCRIPTIONS: dict[str, Subscription[Any]] = {
    # Saves what notifications save, and needs the inbox to know what it has handled.
    "notifications with the inbox": Subscription(group=GROUP, topic=ORDER_EVENTS, decode=decode, handle=notify),
    "sales": replace(SALES, group=GROUP),
}
register(SUBSCRIPTIONS[os.environ["BENCH_SUBSCRIPTION"]])
