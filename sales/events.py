"""The vocabulary of sales: the type, the fields and the JSON of the event of an anomaly."""

from decimal import Decimal
from typing import Annotated, Final, Literal, get_args
from uuid import UUID

import msgspec

from events.subscriptions import Topic, register_topic

SALES_ANOMALY_DETECTED: Final = "SALES_ANOMALY_DETECTED"
SALES_EVENTS = register_topic(Topic(setting="SALES_EVENTS_TOPIC", event_types=(SALES_ANOMALY_DETECTED,)))

AnomalyRule = Literal["SURGE", "CANCELLATIONS", "SILENCE"]
ANOMALY_RULES: tuple[AnomalyRule, ...] = get_args(AnomalyRule)

Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class SalesAnomalyDetected(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Sales that are far from the usual for their time."""

    event_id: UUID
    event_type: Literal["SALES_ANOMALY_DETECTED"]
    timestamp: Time
    anomaly_id: int
    rule: AnomalyRule
    start: Annotated[Time, msgspec.Meta(description="Beginning of the interval.")] = msgspec.field(name="from")
    end: Annotated[Time, msgspec.Meta(description="End of the interval, which does not belong to it.")] = msgspec.field(
        name="to"
    )
    observed: Decimal
    """The measured value of the interval, which depends on the rule.

    It is the amount of the created orders for SURGE, the number of cancelled orders for each created one for
    CANCELLATIONS, and the number of orders for SILENCE.
    """
    usual: Decimal
    """The median of the same measure as `observed`, in windows of earlier weeks."""


encode = msgspec.json.Encoder(decimal_format="number").encode
