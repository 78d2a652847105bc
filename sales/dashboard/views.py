"""Admin's page *Sales*: the totals of today beside yesterday's, live charts, and the anomalies."""

from decimal import Decimal, localcontext
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from events.database_clock import database_now
from events.templatetags.moments import moment
from orders.money import won_text
from sales.anomalies.models import SalesAnomaly
from sales.anomalies.showing import sentence
from sales.dashboard.figures import Figures, Totals, read_figures
from sales.dashboard.periods import labels
from sales.intervals import UNITS, Unit
from sales.models import EXACT, ZERO
from sales.series import Sum

PERMISSION = "sales.view_salesbucket"
DEFAULT_UNIT: Unit = "hour"
POLL_PAUSE_S: dict[Unit, int] = {"minute": 2, "hour": 5, "day": 30}
"""Seconds between two polls of the page, by the chart's unit. The chart of days reads a month of minutes each time."""


def page(request: HttpRequest) -> HttpResponse:
    _require_permission(request)
    unit = _unit(request)
    names = {"minute": _("Minutes"), "hour": _("Hours"), "day": _("Days")}
    return TemplateResponse(
        request,
        "sales/dashboard.html",
        {
            **admin.site.each_context(request),
            "title": _("Sales"),
            "units": [
                {"name": names[one], "address": f"{reverse('sales-page')}?interval={one}", "is_chosen": one == unit}
                for one in UNITS
            ],
            "state": f"{reverse('sales-state')}?interval={unit}",
            "pause_ms": POLL_PAUSE_S[unit] * 1000,
            "earlier": _("a week earlier") if unit == "day" else _("a day earlier"),
            "list_of_anomalies": _address_of_list(request),
        },
    )


def state(request: HttpRequest) -> JsonResponse:
    """Return the figures of the page as JSON for its script. `at` and `when` are HTML; the other texts are plain.

    The charts get amounts as floats, which are exact enough for pixels. The texts have the exact amounts. If the
    database fails or a query takes too long, the status is 503, and the JSON has only the member `error`.
    """
    _require_permission(request)
    unit, zone = _unit(request), timezone.get_current_timezone()
    try:
        figures = read_figures(database_now(), unit=unit, zone=zone)
    except OperationalError as error:
        return JsonResponse({"error": str(error).strip()}, status=503)
    names = labels(figures.starts, unit=unit, zone=zone)
    return JsonResponse(
        {
            "at": moment(timezone.now()),
            "cards": {
                "created": _card(figures.today.created, figures.yesterday.created),
                "paid": _card(figures.today.paid, figures.yesterday.paid),
                "cancelled": _card(figures.today.cancelled, figures.yesterday.cancelled),
            },
            "labels": names,
            "amounts": {
                "now": [float(one.created.amount) for one in figures.series],
                "earlier": [float(one.created.amount) for one in figures.earlier],
            },
            "counts": {
                name: [getattr(one, name).number for one in figures.series] for name in ("created", "paid", "cancelled")
            },
            "table": [[label, *_cells(totals)] for label, totals in zip(names, figures.series, strict=True)],
            "anomalies": [_anomaly(request, one, figures) for one in figures.anomalies],
            "texts": {"amounts": _text_of_amounts(figures), "counts": _text_of_counts(figures)},
        }
    )


def may_view(request: HttpRequest) -> bool:
    return request.user.has_perm(PERMISSION)


def _require_permission(request: HttpRequest) -> None:
    if not may_view(request):
        raise PermissionDenied


def _unit(request: HttpRequest) -> Unit:
    given = request.GET.get("interval")
    return next((unit for unit in UNITS if unit == given), DEFAULT_UNIT)


def _address_of_list(request: HttpRequest) -> str:
    """Return the address of the list of all anomalies; empty if the user may not view it."""
    may_view_rows = request.user.has_perm("sales.view_salesanomaly")
    return reverse("admin:sales_salesanomaly_changelist") if may_view_rows else ""


def _card(today: Sum, yesterday: Sum) -> dict[str, str]:
    (count, amount), (count_before, amount_before) = today, yesterday
    return {
        "figure": won_text(amount),
        "orders": _orders(count),
        "yesterday": f"{won_text(amount_before)}, {_orders(count_before)}",
        "change": _change(amount, amount_before),
    }


def _orders(count: int) -> str:
    return ngettext("%(count)s order", "%(count)s orders", count) % {"count": f"{count:,}"}


def _change(today: Decimal, yesterday: Decimal) -> str:
    """Return the change of the amount in percent, such as `+12 %`; empty if there is nothing to compare with."""
    if yesterday <= 0:
        return ""
    return f"{(today - yesterday) * 100 / yesterday:+,.0f} %".replace("-", "−")


def _cells(totals: Totals) -> list[str]:
    return [text for one in totals for text in (f"{one.number:,}", won_text(one.amount))]


def _anomaly(request: HttpRequest, anomaly: SalesAnomaly, figures: Figures) -> dict[str, Any]:
    """Return an anomaly as JSON. `first` and `last` are the indices of the chart's intervals that it overlaps."""
    touched = [
        number
        for number, (start, end) in enumerate(zip(figures.starts, [*figures.starts[1:], figures.end], strict=True))
        if start < anomaly.ended_at and end > anomaly.started_at
    ]
    return {
        "rule": anomaly.rule,
        "name": anomaly.get_rule_display(),
        "sentence": sentence(anomaly),
        "when": f"{moment(anomaly.started_at)} – {moment(anomaly.ended_at)}",
        "first": touched[0],
        "last": touched[-1],
        "address": reverse("admin:sales_salesanomaly_change", args=[anomaly.pk]) if _address_of_list(request) else "",
    }


def _text_of_amounts(figures: Figures) -> str:
    """Return a sentence that says what the chart of amounts shows."""
    with localcontext(EXACT):
        now, earlier = (sum((one.created.amount for one in of), ZERO) for of in (figures.series, figures.earlier))
    return _("Together %(now)s, and %(earlier)s in the same time earlier. The last interval is in progress.") % {
        "now": won_text(now),
        "earlier": won_text(earlier),
    }


def _text_of_counts(figures: Figures) -> str:
    """Return a sentence that says what the chart of orders shows."""
    return _("Together %(created)s created, %(paid)s paid, %(cancelled)s cancelled.") % {
        name: f"{sum(getattr(one, name).number for one in figures.series):,}" for name in Totals._fields
    }
