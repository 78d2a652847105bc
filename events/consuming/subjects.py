"""Complete dead letters of an earlier release, which names no subject.

Consumers of that release may run beside this one during a rollout, after the migration that read the letters of before.
"""

from django.db.models.functions import Length

from events.consuming.dead_letters import named_by_body
from events.kafka import MAX_MESSAGE_BYTES
from events.models import DeadLetter


def complete_subjects() -> None:
    """Read from the bodies of letters without a subject what they are about, and keep it.

    A letter of this release lacks its subject where its body names none. Few of these have an event id, from their
    headers, and are read again each time.
    """
    incomplete = DeadLetter.objects.filter(subject_id=None, event_id__isnull=False)
    letters = incomplete.alias(size=Length("value")).filter(size__lte=MAX_MESSAGE_BYTES)
    # One body at a time, because it may have two mebibytes.
    for pk in list(letters.values_list("pk", flat=True)):
        for topic, value in letters.filter(pk=pk).values_list("topic", "value"):
            if named := named_by_body(topic, bytes(value or b"")):
                incomplete.filter(pk=pk).update(**named._asdict())
