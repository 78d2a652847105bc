from typing import Any

from rest_framework import serializers

from events.wire.timestamps import TimestampField
from fulfilment.models import Fulfilment, FulfilmentStep
from fulfilment.transitions import SHOWN, Result, Step
from payments.messages import MAX_TOKEN_CHARS

SHOWN_STATES = sorted(set(SHOWN.values()), key=list(SHOWN.values()).index)
RESULTS = Result.values
STEPS = Step.values


class TokenField(serializers.RegexField):
    """A token of the payment provider. It rejects numbers, which the REST framework would convert to strings."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(r"^[!-~]+\Z", max_length=MAX_TOKEN_CHARS, trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class CheckoutSerializer(serializers.Serializer[Any]):
    """The body of `POST /api/orders/{id}/checkout`. Unknown fields are ignored."""

    paymentToken = TokenField(
        source="payment_token", help_text="The payment provider's token for the customer's means of payment."
    )


class StepSerializer(serializers.ModelSerializer[FulfilmentStep]):
    step = serializers.ChoiceField(STEPS)
    state = serializers.ChoiceField(RESULTS)
    at = TimestampField(help_text="The step has had its state since this time.")
    reason = serializers.CharField(help_text="Why it was refused or failed; else empty.")

    class Meta:
        model = FulfilmentStep
        fields = ("step", "state", "at", "reason")
        read_only_fields = fields


class FulfilmentSerializer(serializers.ModelSerializer[Fulfilment]):
    orderId = serializers.IntegerField(source="pk")
    state = serializers.ChoiceField(SHOWN_STATES, source="shown_state")
    reason = serializers.CharField(help_text="Why it is undone; else empty.")
    deadlineAt = TimestampField(
        source="deadline_at", allow_null=True, help_text="The current step ends by then; null if no step is under way."
    )
    steps = StepSerializer(source="begun_steps", many=True, help_text="The steps that were begun, oldest first.")

    class Meta:
        model = Fulfilment
        fields = ("orderId", "state", "reason", "deadlineAt", "steps")
        read_only_fields = fields
