"""Show times and lengths of time in the same way on all pages of admin.

A time is shown in the user's zone, with the name of the zone. Its title attribute has the time in UTC.
"""

from datetime import UTC, datetime

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from events.wire.timestamps import rfc3339

register = template.Library()


@register.filter
def moment(time: datetime) -> SafeString:
    """Return HTML with a text such as `2025-01-30 19:15:30 KST` and a title such as `2025-01-30 10:15:30.123 UTC`."""
    return _html(time, timespec="seconds")


@register.filter
def precise_moment(time: datetime) -> SafeString:
    """Return HTML as `moment` does, but with milliseconds in the text."""
    return _html(time, timespec="milliseconds")


def clock(time: datetime) -> str:
    """Return the time of day as text, such as `19:15:30 KST`, for a sentence about the last minutes."""
    local = timezone.localtime(time)
    return f"{local:%H:%M:%S} {local.tzname()}"


def duration(seconds: float) -> str:
    """Return a length of time such as `14 s` or `3 min`, in the largest unit that gives at least 2, else in seconds."""
    for size, text in ((86_400, gettext("%d d")), (3_600, gettext("%d h")), (60, gettext("%d min"))):
        if seconds >= 2 * size:
            return text % (seconds // size)
    return gettext("%d s") % seconds


def _html(time: datetime, *, timespec: str) -> SafeString:
    local = timezone.localtime(time)
    return format_html(
        '<time datetime="{}" title="{} UTC">{} {}</time>',
        rfc3339(time),
        _digits(time.astimezone(UTC), timespec="milliseconds"),
        _digits(local, timespec=timespec),
        local.tzname(),
    )


def _digits(time: datetime, *, timespec: str) -> str:
    return time.replace(tzinfo=None).isoformat(sep=" ", timespec=timespec)
