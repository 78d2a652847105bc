"""Fill in `subject_id` (such as the order's id) of dead letters that an earlier release recorded without it.

During a rollout, consumers of that release may record letters after the migration that filled in the existing ones.
"""

from django.db.models.functions import Length

from events.consuming.dead_letters import event_named_in_body
from events.kafka import MAX_MESSAGE_BYTES
from events.models import DeadLetter


def complete_subjects() -> None:
    """Store the missing subject ids of dead letters, and with them the event ids and types, as their bodies name them.

    Letters without an event id, or with a body above `MAX_MESSAGE_BYTES`, are skipped. A letter stays without a subject
    id if its body does not name all three of the event's id, type and subject. Every call reads such a body again, but
    such letters are few. Only an earlier release records a letter without the subject id if its body names all three.
    """
    incomplete = DeadLetter.objects.filter(subject_id=None, event_id__isnull=False)
    letters = incomplete.alias(size=Length("value")).filter(size__lte=MAX_MESSAGE_BYTES)
    # One body at a time, because each may have 2 MiB.
    for pk in list(letters.values_list("pk", flat=True)):
        for topic, value in letters.filter(pk=pk).values_list("topic", "value"):
            if named := event_named_in_body(topic, bytes(value or b"")):
                incomplete.filter(pk=pk).update(**named._asdict())
