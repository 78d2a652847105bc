"""System checks of the settings of fulfilments."""

from typing import Any

from django.conf import settings
from django.core import checks

PAIRS = {
    "FULFILMENT_PAYMENT_TIMEOUT": "PAYMENT_GIVES_UP_AFTER",
    "FULFILMENT_SHIPMENT_TIMEOUT": "SHIPPING_GIVES_UP_AFTER",
}


@checks.register()
def participants_give_up_before_deadlines(**kwargs: Any) -> list[checks.CheckMessage]:
    """Warn if fulfilment may undo a step while the participant still tries it.

    This happens if the step's timeout is not longer than the time after which the participant gives up.
    """
    return [
        checks.Warning(
            f"{timeout} is not longer than {gives_up}, so slow orders are undone although they could succeed.",
            hint=f"Set {timeout} to more than {gives_up}.",
            id="fulfilment.W001",
        )
        for timeout, gives_up in PAIRS.items()
        if getattr(settings, timeout) <= getattr(settings, gives_up)
    ]
