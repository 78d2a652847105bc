"""Judges the figures of the pipeline page: what is wrong, how badly, and where the runbook explains it."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from commerce.operations.figures import COUNT_LIMIT, WINDOW_MINUTES, Figures, GroupOnTopic
from commerce.operations.thresholds import (
    COMMANDS_NOT_DONE,
    CONSUMER_GONE,
    DEAD_LETTERS,
    DEADLINES_NOT_WATCHED,
    EMAILS_FAILING,
    EMAILS_NOT_SENT,
    FULFILMENT_STUCK,
    LAG_GROWS,
    MESSAGES_PARKED,
    OLDEST_PENDING_TOO_OLD,
    PARTITION_NEVER_READ,
    PIPELINE_UNKNOWN,
    RECENT_MINUTES,
    Level,
)
from events.kafka.lag import is_never_read
from events.templatetags.moments import duration
from fulfilment.work import DEADLINES

Card = Literal["lag", "pending", "parked", "letters", "emails", "failed_emails", "commands", "stuck"]


class Finding(NamedTuple):
    """One thing that is wrong with the event pipeline."""

    level: Level
    card: Card
    """The card whose colour this finding sets."""
    section: str
    """Anchor of the section about this finding in the runbook (docs/operations.md)."""
    sentence: str


def judge(figures: Figures) -> list[Finding]:
    """Return what is wrong according to the figures, the worst first. The sentences are in the active language."""
    found = [*_lag(figures), *_outbox(figures), *_letters(figures), *_emails(figures), *_fulfilments(figures)]
    return sorted(found, key=lambda finding: finding.level != "critical")


def count(number: int) -> str:
    """Return a number as people write it, such as `12,345`."""
    return str(formats.number_format(number, use_l10n=True, force_grouping=True))


def limited_count(number: int) -> str:
    """Return the text for a number that was counted up to `COUNT_LIMIT` only, such as `10,000+`."""
    return f"{count(number)}+" if number >= COUNT_LIMIT else count(number)


def _lag(figures: Figures) -> Iterator[Finding]:
    if figures.groups is None:
        sentence = _("Kafka does not answer; orders are accepted, and their events wait in the outbox.")
        yield Finding(PIPELINE_UNKNOWN.severity, "lag", PIPELINE_UNKNOWN.section, sentence)
        return
    for group in figures.groups:
        for finding in _lag_of(group, figures.since_handled_s.get(group.group)):
            # With one group, its name says nothing.
            name = f"{group.group}: " if len(figures.groups) > 1 else ""
            yield finding._replace(sentence=f"{name}{finding.sentence}")


def _lag_of(group: GroupOnTopic, since_handled_s: float | None) -> Iterator[Finding]:
    """Judge one group. `since_handled_s` is None if the group handled nothing in the last `WINDOW_MINUTES` minutes."""
    late_s = group.seconds_behind
    values = {"count": count(group.lag), "time": duration(late_s)}
    if group.members == []:
        sentence = ngettext(
            "No consumer is running; %(count)s message waits.",
            "No consumer is running; %(count)s messages wait.",
            group.lag,
        )
        yield Finding(CONSUMER_GONE.severity, "lag", CONSUMER_GONE.section, sentence % values)
    elif level := LAG_GROWS.level(late_s):
        if since_handled_s is None or since_handled_s >= late_s:
            # The group has handled nothing since the oldest waiting message arrived, as far as the figures go back.
            idle_s = late_s if since_handled_s else min(late_s, WINDOW_MINUTES * 60)
            values["time"] = duration(idle_s)
            sentence = ngettext(
                "Nothing was handled for %(time)s; %(count)s message waits.",
                "Nothing was handled for %(time)s; %(count)s messages wait.",
                group.lag,
            )
        else:
            sentence = ngettext(
                "%(count)s message has waited for %(time)s.",
                "%(count)s messages wait, the oldest for %(time)s.",
                group.lag,
            )
        yield Finding(level, "lag", LAG_GROWS.section, sentence % values)
    never_read = [
        one.partition
        for one in group.partitions
        if is_never_read(current_offset=one.current_offset, end_offset=one.end_offset)
    ]
    if never_read and (level := PARTITION_NEVER_READ.level(len(never_read))):
        names = ", ".join(f"{group.topic}[{partition}]" for partition in never_read)
        sentence = _("The group has never read a record of %(partitions)s.") % {"partitions": names}
        yield Finding(level, "lag", PARTITION_NEVER_READ.section, sentence)


def _outbox(figures: Figures) -> Iterator[Finding]:
    outbox = figures.outbox
    if level := OLDEST_PENDING_TOO_OLD.level(outbox.oldest_pending_seconds):
        sentence = ngettext(
            "%(count)s event waits for Kafka, for %(time)s.",
            "%(count)s events wait for Kafka, the oldest for %(time)s.",
            outbox.pending,
        ) % {"count": limited_count(outbox.pending), "time": duration(outbox.oldest_pending_seconds)}
        yield Finding(level, "pending", OLDEST_PENDING_TOO_OLD.section, sentence)
    if level := MESSAGES_PARKED.level(figures.parked_recently):
        sentence = ngettext(
            "%(count)s message was parked in the last %(minutes)d minutes, because it can never be sent.",
            "%(count)s messages were parked in the last %(minutes)d minutes, because they can never be sent.",
            figures.parked_recently,
        ) % {"count": limited_count(figures.parked_recently), "minutes": RECENT_MINUTES}
        yield Finding(level, "parked", MESSAGES_PARKED.section, sentence)


def _letters(figures: Figures) -> Iterator[Finding]:
    if level := DEAD_LETTERS.level(figures.open_letters):
        sentence = ngettext(
            "%(count)s dead letter is open.", "%(count)s dead letters are open.", figures.open_letters
        ) % {"count": limited_count(figures.open_letters)}
        yield Finding(level, "letters", DEAD_LETTERS.section, sentence)


def _emails(figures: Figures) -> Iterator[Finding]:
    emails, failed = figures.emails, figures.failed_emails_recently
    if level := EMAILS_NOT_SENT.level(emails.oldest_pending_seconds):
        sentence = ngettext(
            "%(count)s e-mail waits, for %(time)s.", "%(count)s e-mails wait, the oldest for %(time)s.", emails.pending
        ) % {"count": limited_count(emails.pending), "time": duration(emails.oldest_pending_seconds)}
        yield Finding(level, "emails", EMAILS_NOT_SENT.section, sentence)
    if failed:
        sentence = ngettext(
            "%(count)s e-mail failed for good in the last %(minutes)d minutes.",
            "%(count)s e-mails failed for good in the last %(minutes)d minutes.",
            failed,
        ) % {"count": limited_count(failed), "minutes": RECENT_MINUTES}
        yield Finding(EMAILS_FAILING.severity, "failed_emails", EMAILS_FAILING.section, sentence)


def _fulfilments(figures: Figures) -> Iterator[Finding]:
    for work in figures.work:
        backlog = work.backlog
        if work.is_commands and (level := COMMANDS_NOT_DONE.level(backlog.oldest_pending_seconds)):
            sentence = ngettext(
                "%(count)s command to %(kind)s waits, for %(time)s.",
                "%(count)s commands to %(kind)s wait, the oldest for %(time)s.",
                backlog.pending,
            ) % {
                "count": limited_count(backlog.pending),
                "kind": work.kind.name,
                "time": duration(backlog.oldest_pending_seconds),
            }
            yield Finding(level, "commands", COMMANDS_NOT_DONE.section, sentence)
        if work.kind is DEADLINES and (level := DEADLINES_NOT_WATCHED.level(backlog.overdue_seconds)):
            sentence = _("A deadline of a fulfilment passed %(time)s ago, and no worker has taken it.")
            values = {"time": duration(backlog.overdue_seconds)}
            yield Finding(level, "stuck", DEADLINES_NOT_WATCHED.section, sentence % values)
    if level := FULFILMENT_STUCK.level(figures.stuck_fulfilments):
        sentence = ngettext(
            "%(count)s fulfilment is stuck.", "%(count)s fulfilments are stuck.", figures.stuck_fulfilments
        ) % {"count": limited_count(figures.stuck_fulfilments)}
        yield Finding(level, "stuck", FULFILMENT_STUCK.section, sentence)
