"""Show the state of leased work (`events.work`) in the same way on all pages of admin."""

from django import template
from django.template.loader import render_to_string

from events.work.models import LeasedWork

register = template.Library()

STATE_COLOURS = {"pending": "warning", "done": "success", "failed": "danger", "cancelled": ""}


@register.filter
def state_label(work: LeasedWork) -> str:
    """Return the HTML of a label with the state of `work`."""
    context = {"text": work.get_state_display(), "variant": STATE_COLOURS[work.state]}
    return render_to_string("unfold/helpers/label.html", context)
