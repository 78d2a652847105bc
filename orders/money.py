"""Show amounts of money in admin, in one way. The API and the events do not use this module."""

from decimal import Decimal

from django.utils.html import format_html
from django.utils.safestring import SafeString


def won_text(amount: Decimal) -> str:
    """Return a text such as `1,234,500원`. Decimals are shown only if they are not zero: `0.50원`."""
    return f"{amount:,.2f}".removesuffix(".00") + "원"


def won(amount: Decimal) -> SafeString:
    """Return the text of `won_text` as HTML, aligned to the right in lists."""
    return format_html('<span class="money">{}</span>', won_text(amount))
