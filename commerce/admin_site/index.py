"""Admin's index: the summary of the event pipeline, the latest orders, and the open dead letters by cause."""

from typing import Any

from django.http import HttpRequest

from commerce.operations import pipeline
from events.admin.dead_letters import open_letters_by_cause
from orders.admin import STATUS_COLOURS
from orders.models import Order
from orders.money import won

LATEST_ORDERS = 10


def add_overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add to the context of the index page the summary, orders and dead letters that the user may view."""
    if pipeline.may_view(request.user):
        context["pipeline"] = pipeline.summary()
    if request.user.has_perm("orders.view_order"):
        newest = Order.objects.select_related("user").order_by("-created_at", "-id")[:LATEST_ORDERS]
        context["orders"] = [
            {"order": order, "colour": STATUS_COLOURS[order.status], "total": won(order.total_amount)}
            for order in newest
        ]
    if request.user.has_perm("events.view_deadletter"):
        context["causes"] = open_letters_by_cause()
    return context
