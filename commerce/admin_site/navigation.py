"""Admin's sidebar. The pages that operators need most come first."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from commerce.operations import pipeline
from commerce.operations.figures import count_open_letters, count_stuck_fulfilments
from commerce.operations.verdict import limited_count
from sales.dashboard import views as sales


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    items: dict[str, list[tuple[str, ...]]] = {
        _("Orders and events"): [
            (_("Event pipeline"), "timeline", "pipeline", *pipeline.PERMISSIONS),
            (_("Sales"), "bar_chart", "sales-page", sales.PERMISSION),
            (
                _("Sales anomalies"),
                "troubleshoot",
                "admin:sales_salesanomaly_changelist",
                "sales.view_salesanomaly",
            ),
            (_("Orders"), "shopping_cart", "admin:orders_order_changelist", "orders.view_order"),
            (
                _("Fulfilments"),
                "local_shipping",
                "admin:fulfilment_fulfilment_changelist",
                "fulfilment.view_fulfilment",
            ),
            (
                _("Notifications"),
                "notifications",
                "admin:notifications_notification_changelist",
                "notifications.view_notification",
            ),
            (_("E-mails"), "mail", "admin:notifications_emaildelivery_changelist", "notifications.view_emaildelivery"),
            (
                _("Payment commands"),
                "credit_card",
                "admin:payments_paymentcommand_changelist",
                "payments.view_paymentcommand",
            ),
            (
                _("Shipping commands"),
                "local_shipping",
                "admin:shipping_shippingcommand_changelist",
                "shipping.view_shippingcommand",
            ),
            (_("Outbox"), "outbox", "admin:events_outboxevent_changelist", "events.view_outboxevent"),
            (_("Order history"), "history", "admin:orders_orderhistory_changelist", "orders.view_order"),
            (_("Dead letters"), "report", "admin:events_deadletter_changelist", "events.view_deadletter"),
            (_("Runbook"), "menu_book", "runbook", "events.view_outboxevent"),
        ],
        _("Accounts"): [
            (_("Users"), "person", "admin:auth_user_changelist", "auth.view_user"),
            (_("Groups"), "group", "admin:auth_group_changelist", "auth.view_group"),
            (_("Failed logins"), "lock", "admin:axes_accessattempt_changelist", "axes.view_accessattempt"),
        ],
    }
    return [
        {
            "title": title,
            "separator": True,
            "items": [
                {"title": name, "icon": icon, "link": reverse(place), "badge": _badge(place)}
                for name, icon, place, *permissions in entries
                if request.user.has_perms(permissions)
            ],
        }
        for title, entries in items.items()
    ]


def _badge(place: str) -> str | None:
    """Return the text of an entry's badge: the number of rows that wait for an operator; None if there are none.

    `place` is the URL name of the entry's page. Only open dead letters and stuck fulfilments wait for an operator.
    """
    match place:
        case "admin:events_deadletter_changelist":
            waiting = count_open_letters()
        case "admin:fulfilment_fulfilment_changelist":
            waiting = count_stuck_fulfilments()
        case _:
            waiting = 0
    return limited_count(waiting) if waiting else None
