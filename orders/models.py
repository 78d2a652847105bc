"""Orders and their items. Every change of an order goes through a transition, which numbers its event."""

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, cast
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models
from django.db.models import Q
from django.template.defaultfilters import pluralize
from django.utils.functional import cached_property
from django.utils.translation import gettext, gettext_lazy

from events.models import OutboxEvent
from events.outbox import recording as outbox
from events.prepared import PreparedStatement
from events.wire.messages import Message
from events.wire.timestamps import now, rfc3339
from orders.events import ORDER_CANCELLED, ORDER_CREATED, ORDER_PAID, OrderEventType, stream_of


class InvalidTransition(Exception):
    """The order's status does not allow the requested change."""

    def __init__(self, order: "Order", status: "Order.Status") -> None:
        super().__init__(f"{order} is {order.status} and cannot become {status}.")
        self.order = order


class UnknownHistory(Exception):
    """The order's status and its number of events do not tell the type of an event."""


NEXT_ID = "nextval('orders_order_id_seq')"
"""SQL expression that draws the id of a new order. Insert the order at once: the newest must have the highest id."""

INSERT = PreparedStatement(
    f"""
    WITH event AS ({outbox.INSERT}), placed AS (
        INSERT INTO orders_order (id, user_id, total_amount, status, created_at, last_sequence, event_ids)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
    )
    INSERT INTO orders_orderitem (order_id, product_id, quantity, price)
    SELECT %s::bigint, unnest(%s::bigint[]), unnest(%s::integer[]), unnest(%s::numeric[])
    RETURNING id
    """  # noqa: S608 - contains no input
)
"""Statement that inserts a new order, its event and its items."""


class OrderManager(models.Manager["Order"]):
    def next_id(self) -> int:
        """Return the next order id from the sequence of the database."""
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {NEXT_ID}")
            (number,) = cursor.fetchone()
        return cast(int, number)

    def insert(self, order: "Order", event: Message) -> None:
        """Insert a new order, its `lines` and its event atomically, and set the ids of the lines.

        One SQL statement replaces three INSERTs of the ORM, because every POST waits for it. For the figures see
        docs/performance.md.
        """
        lines = order.lines
        with connection.cursor() as cursor:
            INSERT.execute(
                cursor,
                [
                    *event,
                    *(order.id, order.user_id, order.total_amount, order.status, order.created_at),
                    *(order.last_sequence, order.event_ids),
                    order.id,
                    [line.product_id for line in lines],
                    [line.quantity for line in lines],
                    [line.price for line in lines],
                ],
            )
            for line, (line_id,) in zip(lines, cursor.fetchall(), strict=True):
                line.id = line_id


class Order(models.Model):
    read_at: datetime
    """The database's time at which `find_order`, `lock_order` or `lock_orders` read the row. No other query sets it.

    For a locked row, this is before the wait for the lock, or after it if another transaction changed the row
    meanwhile.
    """

    class Status(models.TextChoices):
        PENDING = "PENDING", gettext_lazy("Pending")
        PAID = "PAID", gettext_lazy("Paid")
        CANCELLED = "CANCELLED", gettext_lazy("Cancelled")

    EVENT_TYPES: ClassVar[dict[tuple[str, int], tuple[OrderEventType, ...]]] = {
        (Status.PENDING, 1): (ORDER_CREATED,),
        (Status.PAID, 2): (ORDER_CREATED, ORDER_PAID),
        (Status.CANCELLED, 2): (ORDER_CREATED, ORDER_CANCELLED),
        (Status.CANCELLED, 3): (ORDER_CREATED, ORDER_PAID, ORDER_CANCELLED),
    }
    """The types of an order's events in sequence, by (status, number of events). A new transition needs new entries."""
    ALLOWED_FROM: ClassVar[dict[Status, set[Status]]] = {
        Status.PAID: {Status.PENDING},
        Status.CANCELLED: {Status.PENDING, Status.PAID},
    }
    """The statuses from which an order may move, by the status to which it moves. No order moves to PENDING."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="orders", db_index=False)
    total_amount = models.DecimalField(max_digits=20, decimal_places=2)
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    created_at = models.DateTimeField(default=now)
    last_sequence = models.PositiveIntegerField(
        default=0,
        help_text="The last event recorded for this order has this number. Change it under the row's lock only.",
    )
    # An earlier release stored no ids: the field is null, or has fewer ids than the order has events.
    event_ids = ArrayField(
        models.UUIDField(), null=True, help_text="These are the ids of its events, the first one first. See `event_id`."
    )

    objects: ClassVar[OrderManager] = OrderManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(total_amount__gte=0), name="order_total_not_negative"),
            models.CheckConstraint(condition=Q(status__in=["PENDING", "PAID", "CANCELLED"]), name="order_status_known"),
        ]
        permissions = [("pay_order", "Can pay orders"), ("cancel_order", "Can cancel orders")]
        indexes = [
            models.Index(fields=["user", "-id"], name="order_of_user_newest_first"),
            models.Index(fields=["created_at"], name="order_created_at"),
        ]

    def __str__(self) -> str:
        return gettext("Order %(id)s") % {"id": self.pk}

    @cached_property
    def lines(self) -> list["OrderItem"]:
        """Return the order's items in the sequence of the request. A query of orders can prefetch them with `LINES`.

        The items that this property reads do not refer back to the order: a reference cycle would stay in memory until
        the garbage collector runs.
        """
        return list(OrderItem.objects.filter(order_id=self.pk))

    @property
    def stream(self) -> str:
        """Return the name of the outbox stream that keeps this order's events in sequence."""
        return stream_of(self.pk)

    @property
    def event_types(self) -> tuple[OrderEventType, ...]:
        """Return the types of the order's events in sequence. Raise UnknownHistory if they cannot be known."""
        try:
            return self.EVENT_TYPES[self.status, self.last_sequence]
        except KeyError:
            raise UnknownHistory(
                f"{self} is {self.status} with {self.last_sequence} event{pluralize(self.last_sequence)}, and no known "
                "changes lead there: find the program that changed it"
            ) from None

    def number_event(self) -> None:
        """Increment `last_sequence` and append a random id for the next event to `event_ids`, both in memory.

        A random id cannot be guessed from public values. The order's row keeps it, so that an event whose outbox row
        was lost is sent again under the same id.
        """
        self.event_ids = [*map(self.event_id, range(1, self.last_sequence + 1)), uuid4()]
        self.last_sequence += 1

    def event_id(self, sequence: int) -> UUID:
        """Return the id of this order's event number `sequence`, counted from 1."""
        if self.event_ids and sequence <= len(self.event_ids):
            return self.event_ids[sequence - 1]
        # An earlier release, which may still run beside this one, computes the id of every event in this way.
        return uuid5(NAMESPACE_URL, f"/orders/{self.pk}/{rfc3339(self.created_at)}/{sequence}")

    def pay(self) -> None:
        """Move the order to PAID and number its event, in memory. Raise InvalidTransition unless it is PENDING."""
        self._move_to(self.Status.PAID)

    def cancel(self) -> None:
        """Move the order to CANCELLED and number its event, in memory. Raise InvalidTransition if it is CANCELLED."""
        self._move_to(self.Status.CANCELLED)

    def may_become(self, status: "Order.Status") -> bool:
        return self.status in self.ALLOWED_FROM[status]

    def _move_to(self, status: "Order.Status") -> None:
        if not self.may_become(status):
            raise InvalidTransition(self, status)
        self.status = status
        self.number_event()


class OrderItem(models.Model):
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="items")
    product_id = models.BigIntegerField()
    quantity = models.IntegerField()
    price = models.DecimalField(
        max_digits=12, decimal_places=2, help_text=gettext_lazy("This is the price of one piece.")
    )

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(product_id__gte=1), name="item_product_id_positive"),
            models.CheckConstraint(condition=Q(quantity__gte=1), name="item_quantity_positive"),
            models.CheckConstraint(condition=Q(price__gte=0), name="item_price_not_negative"),
        ]

    def __str__(self) -> str:
        return gettext("%(quantity)s x product %(id)s") % {"quantity": self.quantity, "id": self.product_id}

    @property
    def amount(self) -> Decimal:
        return self.price * self.quantity


LINES: Any = models.Prefetch("items", OrderItem.objects.all(), to_attr="lines")
"""Argument of `prefetch_related` that lets a query of orders read their lines as well.

It is `Any`, because the type checker would take `to_attr` for a second definition of `Order.lines`.
"""


class OrderHistory(models.Model):
    """An event of an order that `prune_events` has moved from the outbox, unchanged and with the id of its row.

    Triggers refuse changes of the rows outside of `orders.history.maintenance`. An event moves back to the outbox to be
    sent again, so no event is in both tables.
    """

    id = models.BigIntegerField(primary_key=True)
    event_id = models.UUIDField(unique=True)
    event_type = models.CharField(max_length=100)
    topic = models.CharField(max_length=249)
    partition = models.IntegerField(null=True)
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = models.BinaryField()
    stream = models.CharField(max_length=100)
    sequence = models.PositiveIntegerField()
    created_at = models.DateTimeField()
    recorded_at = models.DateTimeField()
    published_at = models.DateTimeField(gettext_lazy("acknowledged at"))
    published_path = models.CharField(max_length=5, choices=OutboxEvent.Path, null=True)
    published_partition = models.IntegerField()
    published_offset = models.BigIntegerField()

    class Meta:
        verbose_name = gettext_lazy("event of the history")
        verbose_name_plural = gettext_lazy("history of orders")
        constraints = [
            models.UniqueConstraint(fields=["stream", "sequence"], name="history_sequence_once_per_stream"),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id}"


class IdempotencyKey(models.Model):
    """The stored response to a user's request with this key. See orders.idempotency."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField(help_text="This is the SHA-256 of the request's body.")
    body = models.BinaryField(help_text="This is the body of the response with status 201, byte for byte.")
    location = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=now, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once_per_user")]

    def __str__(self) -> str:
        return f"Idempotency key {self.pk}"
