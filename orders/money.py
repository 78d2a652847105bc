"""The one way in which admin shows an amount of money. The API and the events have their own, unchanged."""

from decimal import Decimal

from django.utils.html import format_html
from django.utils.safestring import SafeString


def won(amount: Decimal) -> SafeString:
    """Return HTML that reads for example `1,234,500원`. Decimals are shown only if they are not zero: `0.50원`."""
    text = f"{amount:,.2f}".removesuffix(".00")
    return format_html('<span class="money">{}원</span>', text)
