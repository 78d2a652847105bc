"""Which notifications and dead letters tell of an order's event: those of its id, its order and its type.

The id alone proves nothing: any program that writes to the topic may put any id into its messages.
"""

from typing import Any, TypeVar

from django.db.models import CharField, Exists, F, Model, OuterRef, QuerySet, Value
from django.db.models.functions import Cast, Concat

from events.models import DeadLetter
from notifications.models import Notification
from orders.models import Order

STREAM = Order(pk=0).stream.removesuffix("0")
"""What the names of orders' streams begin with."""

Told = TypeVar("Told", bound=Model)


def notifications_of_row() -> QuerySet[Notification]:
    """Those of the event in the outbox row that the outer query looks at, for the user of its order."""
    of_its_user = Order.objects.filter(pk=OuterRef("order_id"), user=OuterRef("user_id"))
    told = Notification.objects.filter(Exists(of_its_user), type=OuterRef("event_type"))
    return _about_row(told, order_id=F("order_id"))


def letters_of_row() -> QuerySet[DeadLetter]:
    """Those, open or closed, of the event in the outbox row that the outer query looks at."""
    return _about_row(DeadLetter.objects.filter(event_type=OuterRef("event_type")), order_id=F("subject_id"))


def _about_row(told: QuerySet[Told], *, order_id: F) -> QuerySet[Any]:
    stream = Concat(Value(STREAM), Cast(order_id, CharField()))
    return told.alias(told_stream=stream).filter(event_id=OuterRef("event_id"), told_stream=OuterRef("stream"))
