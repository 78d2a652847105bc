import re
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db import models
from django.db.models import Q
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy, ngettext_lazy

from events.admin.actions import RowAction
from events.admin.leased_work import LeasedWorkAdmin, refuse_unless_failed, try_again
from events.admin.read_only import ReadOnlyAdmin, badge, untranslated
from events.wire.identifiers import id_or_none, uuid_or_none
from events.work.models import LeasedWork
from notifications.mail.showing import show
from notifications.models import EmailDelivery, Notification
from orders.money import won_text

TYPE_COLOURS = {"ORDER_CREATED": "info", "ORDER_PAID": "success", "ORDER_CANCELLED": "danger"}
AMOUNT = re.compile(r"(?<=금액: )(-?\d+\.\d\d)원$")
"""The amount at the end of a message, as `notifications.subscriptions.to_notification` writes it."""
SEARCH_RESULT_LIMIT = 1_000
"""Largest number of e-mails of one user that a search returns. The newest come first."""


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin):
    list_display = ("id", "user_id", "order_id", "type_label", "text", "created_at", "read_at")
    list_filter = ("type", ("read_at", admin.EmptyFieldListFilter))
    search_fields = ("=user_id", "=order_id", "event_id")
    search_help_text = gettext_lazy("A user's, an order's or an event's id")
    ordering = ("-id",)
    readonly_fields = ("type_label", "text")
    fields = (("type_label", "user_id", "order_id"), "text", ("created_at", "read_at"), "event_id")

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if event_id := uuid_or_none(term):
            return rows.filter(event_id=event_id)
        if (number := id_or_none(term)) is None:
            return rows.none()
        return rows.filter(Q(user_id=number) | Q(order_id=number))

    @admin.display(description=gettext_lazy("type"))
    def type_label(self, notification: Notification) -> str:
        return badge(notification.type, TYPE_COLOURS[notification.type])

    @admin.display(description=gettext_lazy("message"))
    def text(self, notification: Notification) -> SafeString:
        """Return the message as HTML, with separators in its amount. The title attribute has the unchanged message."""
        message = notification.message
        text = AMOUNT.sub(lambda amount: won_text(Decimal(amount[1])), message)
        return format_html('<span title="{}">{}</span>', message, text)


SEND_AGAIN = RowAction(
    name="send_again",
    label=gettext_lazy("Send again"),
    label_in_list=gettext_lazy("Send selected e-mails again"),
    question=ngettext_lazy(
        "Send this e-mail again? It goes to the user's current address, unless the user wants no e-mails any more.",
        "Send these %(count)d e-mails again? Each goes to its user's current address, unless the user wants no e-mails "
        "any more.",
        "count",
    ),
    possible=ngettext_lazy("%(count)d can be sent again", "%(count)d can be sent again", "count"),
    done=ngettext_lazy("%(count)d e-mail will be sent again.", "%(count)d e-mails will be sent again.", "count"),
    refuse=refuse_unless_failed,
    do=try_again(EmailDelivery, within=lambda: settings.EMAIL_MAX_AGE, log_text="Send again."),
)


@admin.register(EmailDelivery)
class EmailDeliveryAdmin(LeasedWorkAdmin):
    list_display = ("number", "address", "subject", *LeasedWorkAdmin.WORK_COLUMNS)
    search_fields = ("=notification_id", "=notification__user_id", "=notification__order_id", "address")
    search_help_text = gettext_lazy("A user's, an order's or a notification's id, or an address")
    row_actions = (SEND_AGAIN,)
    readonly_fields = (*LeasedWorkAdmin.readonly_fields, "message")
    fields = (*LeasedWorkAdmin.WORK_FIELDS, "address", "message")

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).defer("text", "content")

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if (number := id_or_none(term)) is None:
            # Two conditions, each of which has an index.
            pending = Q(state=LeasedWork.State.PENDING)
            return rows.filter(Q(~pending, address__iexact=term) | Q(pending, address__iexact=term))
        # The ids are read first, so that PostgreSQL does not scan all e-mails by id to find them.
        newest = Notification.objects.order_by("-id").values_list("pk", flat=True)
        of_user = newest.filter(user_id=number)[:SEARCH_RESULT_LIMIT]
        return rows.filter(pk__in=[number, *of_user, *newest.filter(order_id=number)])

    def for_refusals(self, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
        return rows.only("state")

    def describe(self, row: EmailDelivery) -> list[Any]:
        return [untranslated(row.address), untranslated(row.subject), row.get_state_display()]

    @admin.display(description=gettext_lazy("notification"))
    def number(self, delivery: EmailDelivery) -> int:
        return delivery.pk

    @admin.display(description=gettext_lazy("message"))
    def message(self, delivery: EmailDelivery) -> str:
        try:
            shown, error = show(delivery), ""
        except ValueError as refusal:
            shown, error = None, str(refusal)
        context = {"shown": shown, "error": error, "is_tried": delivery.content is not None}
        return render_to_string("notifications/shown_email.html", context)
