"""The registry of business processes, such as fulfilment, that control orders.

While a process controls an order, only the process changes it: a request to pay it is refused, and a request to cancel
it is handed over. An app registers its process in its `AppConfig.ready`, so that `orders` need not know the process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import BooleanField, Exists, ExpressionWrapper, OuterRef, Q, QuerySet
from django.db.models.expressions import BaseExpression

from events.wire.messages import Message
from orders.models import Order


@dataclass(frozen=True, kw_only=True)
class Process:
    name: str
    """Name in error messages, such as "fulfilment"."""
    orders: Callable[[], QuerySet[Any]]
    """Return rows with the column `order_id`, one for each order that the process controls."""
    cancel: Callable[[Order], list[Message]]
    """Accept the cancellation of an order that the process controls. The caller holds the lock of the order's row.
    Return the recorded messages, which the caller publishes on commit."""


_processes: dict[str, Process] = {}


def register(process: Process) -> None:
    _processes[process.name] = process


def controlling(order: Order) -> Process | None:
    """Return the business process, such as fulfilment, that controls the order; None if none does.

    The answer holds while the caller has the lock of the order's row.
    """
    return next((one for one in _processes.values() if one.orders().filter(order_id=order.pk).exists()), None)


def is_controlled() -> BaseExpression:
    """Return an SQL expression that tells, in a query of `Order` rows, whether a business process controls the order.

    An example of such a process is fulfilment.
    """
    found = (Q(Exists(one.orders().filter(order_id=OuterRef("pk")))) for one in _processes.values())
    return ExpressionWrapper(reduce(or_, found, Q(pk__in=[])), output_field=BooleanField())
