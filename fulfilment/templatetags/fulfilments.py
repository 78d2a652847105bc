from django import template
from django.template.loader import render_to_string
from django.urls import reverse

from fulfilment.models import Fulfilment, FulfilmentStep
from fulfilment.transitions import STUCK, UNDER_WAY, UNDOING, Result, State, Step

STATE_COLOURS = {State.COMPLETED: "success", State.CANCELLED: ""}
STATE_COLOURS |= dict.fromkeys(UNDER_WAY, "info") | dict.fromkeys(UNDOING, "warning") | dict.fromkeys(STUCK, "danger")
RESULT_COLOURS = {Result.WAITING: "info", Result.DONE: "success", Result.REFUSED: "warning", Result.FAILED: "danger"}

register = template.Library()


@register.filter
def fulfilment_label(row: Fulfilment | FulfilmentStep) -> str:
    """Return the state of a fulfilment or of a step as the HTML of a label."""
    is_step = isinstance(row, FulfilmentStep)
    colour = RESULT_COLOURS[Result(row.state)] if is_step else STATE_COLOURS[State(row.state)]
    return render_to_string("unfold/helpers/label.html", {"text": row.get_state_display(), "variant": colour})


@register.filter
def place_of_command(step: FulfilmentStep) -> str:
    """Return the URL of the participant's list of commands in admin, which then shows only the step's command."""
    is_payment = step.step in (Step.PAYMENT, Step.REFUND)
    commands = "admin:payments_paymentcommand_changelist" if is_payment else "admin:shipping_shippingcommand_changelist"
    return f"{reverse(commands)}?q={step.command_id}"
