"""Texts for the observed and the usual value of a sales anomaly."""

from decimal import Decimal

from django.utils.translation import gettext, ngettext

from orders.money import won_text
from sales.anomalies.models import SalesAnomaly


def measure_text(anomaly: SalesAnomaly, value: Decimal) -> str:
    """Return an observed or usual value in its unit: an amount, a share of orders or a number of orders."""
    match anomaly.rule:
        case SalesAnomaly.Rule.SURGE:
            return won_text(value)
        case SalesAnomaly.Rule.CANCELLATIONS:
            return gettext("%(percent)s %% of the new orders") % {"percent": f"{value * 100:,.0f}"}
    return ngettext("%(count)s order", "%(count)s orders", int(value)) % {"count": f"{value:,.0f}"}


def sentence(anomaly: SalesAnomaly) -> str:
    """Return a sentence with the observed value of an anomaly and the usual one."""
    text = gettext("%(observed)s; usual at this time: %(usual)s")
    return text % {
        "observed": measure_text(anomaly, anomaly.observed),
        "usual": measure_text(anomaly, anomaly.usual),
    }
