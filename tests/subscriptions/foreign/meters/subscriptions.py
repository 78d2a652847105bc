from collections.abc import Sequence

from django.db.models import F

from events.subscriptions import Subscription, register
from tests.subscriptions.foreign.meters.events import METER_READINGS, MeterRead, decode
from tests.subscriptions.foreign.meters.models import Meter


def add(events: Sequence[MeterRead]) -> None:
    for event in events:
        Meter.objects.get_or_create(number=event.meter)
        Meter.objects.filter(number=event.meter).update(total=F("total") + event.value)


register(Subscription(group="meters", topic=METER_READINGS, event_types=["METER_READ"], decode=decode, handle=add))
