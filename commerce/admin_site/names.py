"""Names that admin translates while it runs. This module lists them, so that `makemessages` finds them."""

from django.apps import apps
from django.utils.translation import gettext_lazy
from django.utils.translation import gettext_noop as _

TRANSLATED_APPS = (
    *("events", "orders", "notifications", "sales", "payments", "shipping", "fulfilment", "commerce", "axes"),
)
MODELS_AND_FIELDS = (
    _("order"),
    _("orders"),
    _("order item"),
    _("order items"),
    _("notification"),
    _("notifications"),
    _("outbox event"),
    _("outbox events"),
    _("dead letter"),
    _("dead letters"),
    _("Fulfilment"),
    _("fulfilment"),
    _("fulfilments"),
    _("fulfilment step"),
    _("fulfilment steps"),
    _("step"),
    _("reason"),
    _("changed at"),
    _("user"),
    _("account name"),
    _("account names"),
    _("request count"),
    _("request counts"),
    _("Commerce"),
    _("total amount"),
    _("status"),
    _("created at"),
    _("recorded at"),
    _("last sequence"),
    _("event ids"),
    _("product id"),
    _("quantity"),
    _("price"),
    _("user id"),
    _("order id"),
    _("event id"),
    _("type"),
    _("message"),
    _("read at"),
    _("e-mail"),
    _("e-mails"),
    _("due at"),
    _("lease"),
    _("attempts"),
    _("deadline at"),
    _("last error"),
    _("finished at"),
    _("address"),
    _("subject"),
    _("text"),
    _("content"),
    _("email opt out"),
    _("email opt outs"),
    _("event type"),
    _("subject id"),
    _("topic"),
    _("partition"),
    _("key"),
    _("value"),
    _("headers"),
    _("stream"),
    _("sequence"),
    _("acknowledged at"),
    _("published path"),
    _("published partition"),
    _("published offset"),
    _("parked at"),
    _("parked reason"),
    _("group"),
    _("offset"),
    _("timestamp"),
    _("is readable"),
    _("error class"),
    _("error message"),
    _("stacktrace"),
    _("state"),
    _("replay count"),
    _("closed at"),
    _("Sales"),
    _("sales anomaly"),
    _("sales anomalies"),
    _("rule"),
    _("started at"),
    _("ended at"),
    _("observed"),
    _("usual"),
    _("detected at"),
    _("payment command"),
    _("payment commands"),
    _("shipping command"),
    _("shipping commands"),
    _("command id"),
    _("command type"),
    _("reference"),
    _("reply type"),
    _("reason"),
    _("Can pay orders"),
    _("Can cancel orders"),
    _("Can send outbox messages again"),
    _("Can replay dead letters"),
    _("Can dismiss dead letters"),
    _("Can send failed e-mails again"),
    _("Can try failed payment commands again"),
    _("Can try failed shipping commands again"),
)
"""Names that Django derives from those of apps, models and fields, and names of this site's permissions.

No code reads this tuple. It only lets `makemessages` find the names.
"""
AXES_NAMES = {
    "username": _("name"),
    "ip_address": _("address"),
    "failures_since_start": _("failures"),
    "attempt_time": _("last attempt"),
    "user_agent": _("browser"),
    "path_info": _("path"),
}
"""This site's names for the fields of failed logins, a model of axes. Axes has no Korean translation."""


def translate_names() -> None:
    """Give this site's apps, models and fields names that admin translates into the user's language.

    `makemigrations` does not notice these changes.
    """
    for label in TRANSLATED_APPS:
        app = apps.get_app_config(label)
        app.verbose_name = gettext_lazy(str(app.verbose_name))
        for model in app.get_models():
            options = model._meta
            options.verbose_name = gettext_lazy(str(options.verbose_name))
            options.verbose_name_plural = gettext_lazy(str(options.verbose_name_plural))
            for field in options.local_fields:
                field.verbose_name = gettext_lazy(str(field.verbose_name))
    options = apps.get_model("axes", "AccessAttempt")._meta
    options.verbose_name, options.verbose_name_plural = gettext_lazy("failed login"), gettext_lazy("failed logins")
    for name, text in AXES_NAMES.items():
        options.get_field(name).verbose_name = gettext_lazy(text)
