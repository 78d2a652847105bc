from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.db.models import Q
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy, ngettext_lazy
from unfold.admin import TabularInline

from events.admin.actions import Refused, RowAction
from events.admin.large_tables import NewestValuesFilter, PeriodsQuerySet
from events.admin.read_only import ReadOnlyAdmin, badge
from events.admin.stored_messages import MessageAdmin
from events.outbox.publisher import publish
from events.wire.identifiers import id_or_none, uuid_or_none
from orders.events import stream_of
from orders.models import InvalidTransition, Order, OrderHistory, OrderItem
from orders.money import won
from orders.processes import is_controlled
from orders.services import Change, HandedOver, UnderControl, pay_order, request_cancellation

SEARCH_RESULT_LIMIT = 1_000
"""Largest number of orders that a search returns. The newest come first."""


class OrderItemInline(TabularInline):
    model = OrderItem
    fields = ("product_id", "quantity", "price_in_won", "line_total")
    readonly_fields = ("price_in_won", "line_total")
    can_delete = False
    hide_title = True

    @admin.display(description=gettext_lazy("price"))
    def price_in_won(self, item: OrderItem) -> SafeString:
        return won(item.price)

    @admin.display(description=gettext_lazy("line total"))
    def line_total(self, item: OrderItem) -> SafeString:
        return won(item.amount)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let a user who may view orders view their items as well."""
        return request.user.has_perm("orders.view_order")

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


REFUSALS = {"PAID": gettext_lazy("paid already"), "CANCELLED": gettext_lazy("cancelled already")}
"""Reasons why the status of an order forbids a change, by that status. PENDING forbids none."""
BEING_FULFILLED = gettext_lazy("under the control of its fulfilment")


def refuse_unless_payable(order: Any) -> Any:
    """Return why an order with the annotation of `OrderAdmin.for_refusals` cannot be paid; an empty text if it can."""
    if order.is_controlled and order.status == Order.Status.PENDING:
        return BEING_FULFILLED
    return "" if order.may_become(Order.Status.PAID) else REFUSALS[order.status]


def refuse_unless_cancellable(order: Order) -> Any:
    return "" if order.may_become(Order.Status.CANCELLED) else REFUSALS[order.status]


def change_and_publish(change_order: Callable[..., Change | HandedOver]) -> Callable[[int], tuple[Order, str]]:
    """Return a function that calls `change_order` with an order id, and publishes the messages on commit.

    The function returns the order and the text of its log entry. It raises Refused if the order cannot be changed.
    """

    def change(order_id: int) -> tuple[Order, str]:
        try:
            changed = change_order(order_id=order_id)
        except InvalidTransition as error:
            raise Refused(REFUSALS[error.order.status]) from error
        except UnderControl as error:
            raise Refused(BEING_FULFILLED) from error
        if isinstance(changed, HandedOver):
            messages, what = changed.messages, "Cancellation handed over to the fulfilment."
        else:
            messages, what = [changed.event], f"{changed.order.status}, event {changed.event.event_id}."
        transaction.on_commit(lambda: publish(messages), robust=True)
        return changed.order, what

    return change


PAY = RowAction(
    name="pay",
    label=gettext_lazy("Pay"),
    label_in_list=gettext_lazy("Pay selected orders"),
    question=ngettext_lazy(
        "Mark this order as paid? Its customer will be notified.",
        "Mark these %(count)d orders as paid? Their customers will be notified.",
        "count",
    ),
    possible=ngettext_lazy("%(count)d can be paid", "%(count)d can be paid", "count"),
    done=ngettext_lazy("%(count)d order was marked as paid.", "%(count)d orders were marked as paid.", "count"),
    refuse=refuse_unless_payable,
    do=change_and_publish(pay_order),
)
CANCEL = RowAction(
    name="cancel",
    label=gettext_lazy("Cancel order"),
    label_in_list=gettext_lazy("Cancel selected orders"),
    question=ngettext_lazy(
        "Cancel this order? Its customer will be notified. This cannot be undone.",
        "Cancel these %(count)d orders? Their customers will be notified. This cannot be undone.",
        "count",
    ),
    button=ngettext_lazy("Cancel this order", "Cancel %(count)d orders", "count"),
    possible=ngettext_lazy("%(count)d can be cancelled", "%(count)d can be cancelled", "count"),
    done=ngettext_lazy(
        "%(count)d order was cancelled. After a checkout it is cancelled once payment and shipment are undone.",
        "%(count)d orders were cancelled. After a checkout they are cancelled once payment and shipment are undone.",
        "count",
    ),
    refuse=refuse_unless_cancellable,
    do=change_and_publish(request_cancellation),
    is_final=True,
)


STATUS_COLOURS = {"PENDING": "warning", "PAID": "success", "CANCELLED": "danger"}


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    """Read-only list of orders. Only the actions change an order, because each change needs its event."""

    list_display = ("id", "user", "status_label", "total_in_won", "created_at")
    list_filter = ("status",)
    list_select_related = ("user",)
    date_hierarchy = "created_at"
    search_fields = ("=id", "=user__username")
    search_help_text = gettext_lazy("An order's id, a user's id or name")
    ordering = ("-created_at", "-id")
    row_actions = (PAY, CANCEL)
    readonly_fields = ("status_label", "total_in_won")
    fields = (("id", "user"), ("status_label", "total_in_won"), "created_at")
    inlines = (OrderItemInline,)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return PeriodsQuerySet(self.model).order_by(*self.ordering)

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        # A query of its own: a join would compare the name with the user of every order.
        users = list(get_user_model().objects.filter(username=term).values_list("pk", flat=True))
        found = Q(user__in=users)
        if (number := id_or_none(term)) is not None:
            found |= Q(pk=number) | Q(user=number)
        # The ids are read first, so that PostgreSQL does not scan all orders by date to find them.
        newest = Order.objects.filter(found).order_by("-pk").values_list("pk", flat=True)[:SEARCH_RESULT_LIMIT]
        return rows.filter(pk__in=list(newest))

    def for_refusals(self, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
        return rows.annotate(is_controlled=is_controlled())

    def describe(self, row: Order) -> list[str]:
        return [str(row), row.user.get_username(), won(row.total_amount), str(row.get_status_display())]

    @admin.display(description=gettext_lazy("status"))
    def status_label(self, order: Order) -> str:
        return badge(order.get_status_display(), STATUS_COLOURS[order.status])

    @admin.display(description=gettext_lazy("total amount"))
    def total_in_won(self, order: Order) -> SafeString:
        return won(order.total_amount)


@admin.register(OrderHistory)
class OrderHistoryAdmin(MessageAdmin):
    """Read-only list of the events that were moved out of the outbox."""

    list_display = ("event_id", "event_type", "stream", "sequence", "created_at", "published_at")
    list_filter = (("event_type", NewestValuesFilter),)
    search_fields = ("event_id", "stream")
    search_help_text = gettext_lazy("An event id, an order's id, or the whole name of a stream")
    ordering = ("-id",)
    fields = (
        ("event_id", "event_type"),
        ("topic", "partition"),
        ("stream", "sequence"),
        ("created_at", "recorded_at", "published_at"),
        ("published_path", "published_partition", "published_offset"),
        "key_text",
        "value_text",
        "headers_text",
    )

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if event_id := uuid_or_none(term):
            return rows.filter(event_id=event_id)
        order_id = id_or_none(term)
        return rows.filter(stream=term if order_id is None else stream_of(order_id))

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let a user who may view orders view their history as well."""
        return request.user.has_perm("orders.view_order")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)
