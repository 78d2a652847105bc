"""Store the id, type and subject of the event that the body of each existing dead letter names."""

import json
from uuid import UUID

from django.db import migrations

LETTERS_AT_ONCE = 100
LONGEST_BODY_BYTES = 64 * 1024
"""Longest body that is read. Events are shorter, so a longer body cannot be an event."""
EVENT_TYPE_LENGTH = 100


def read_bodies(apps, schema_editor):
    letters = apps.get_model("events", "DeadLetter").objects
    last = 0
    while ids := list(letters.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:LETTERS_AT_ONCE]):
        with_body = letters.filter(pk__in=ids).extra(where=["length(value) <= %s"], params=[LONGEST_BODY_BYTES])
        for pk, value in with_body.values_list("pk", "value"):
            if named := event_named_by(bytes(value)):
                letters.filter(pk=pk).update(**named)
        last = ids[-1]


def event_named_by(body):
    try:
        fields = json.loads(body.decode())
        event_id, event_type, order_id = UUID(fields["eventId"]), fields["eventType"], fields["orderId"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    if type(order_id) is not int or not -(2**63) <= order_id < 2**63:
        return {}
    if type(event_type) is not str or not event_type or not event_type.isprintable():
        return {}
    return {"event_id": event_id, "event_type": event_type[:EVENT_TYPE_LENGTH], "subject_id": order_id}


class Migration(migrations.Migration):
    # Not atomic, so that each row is locked only for its own update.
    atomic = False

    dependencies = [("events", "0006_dead_letter_subject")]

    operations = [migrations.RunPython(read_bodies, migrations.RunPython.noop, elidable=True)]
