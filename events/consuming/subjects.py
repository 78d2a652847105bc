"""Fill in `subject_id` (such as the order's id) of dead letters that an earlier release recorded without it.

During a rollout, consumers of that release may record letters after the migration that filled in the existing ones.
"""

from django.db.models.functions import Length

from events.consuming.dead_letters import event_named_in_body
from events.kafka import MAX_MESSAGE_BYTES
from events.models import DeadLetter


def complete_subjects() -> None:
    """Read the missing subject ids of dead letters from their bodies, and store them.

    Letters of an earlier release may lack a subject id that the body names. A letter of this release lacks it only if
    the body does not name all three of the event's id, type and subject. Every call reads the bodies of such letters
    again, unless they have no event id. They are few.
    """
    incomplete = DeadLetter.objects.filter(subject_id=None, event_id__isnull=False)
    letters = incomplete.alias(size=Length("value")).filter(size__lte=MAX_MESSAGE_BYTES)
    # One body at a time, because each may have 2 MiB.
    for pk in list(letters.values_list("pk", flat=True)):
        for topic, value in letters.filter(pk=pk).values_list("topic", "value"):
            if named := event_named_in_body(topic, bytes(value or b"")):
                incomplete.filter(pk=pk).update(**named._asdict())
