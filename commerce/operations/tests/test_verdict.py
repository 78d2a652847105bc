"""What the pipeline page shows for given figures: its sentences, the colours of its cards, and the runbook sections."""

from typing import Any

import pytest
from django.utils import translation

from commerce.operations.figures import Figures, GroupOnTopic, WorkOfKind
from commerce.operations.verdict import Finding, duration, judge
from events.kafka.cluster import Member
from events.kafka.lag import PartitionLag
from events.observing.readings import Outbox
from events.work.kinds import kind_named
from events.work.models import Backlog

GROUP = "notification-consumer-group"
MEMBER = Member("consumer-1", "/10.0.0.1", [0, 1])


def partition(number: int = 0, *, lag: int = 0, seconds_behind: float | None = 0.0) -> PartitionLag:
    return PartitionLag("order-events", number, 100 - lag, 100, lag, seconds_behind)


NEVER_READ = PartitionLag("order-events", 2, None, 4, None, None)
NEVER_READ_EMPTY = PartitionLag("order-events", 2, None, 0, None, None)


def group(*partitions: PartitionLag, name: str = GROUP, members: list[Member] | None = None) -> GroupOnTopic:
    return GroupOnTopic(name, "order-events", list(partitions or [partition()]), members)


def figures(**changes: Any) -> Figures:
    """Return the figures of a healthy pipeline with these changes."""
    healthy: dict[str, Any] = {
        "groups": [group()],
        "outbox": Outbox(0, 0.0),
        "parked": 0,
        "parked_recently": 0,
        "open_letters": 0,
        "emails": Backlog(0, 0.0),
        "failed_emails": 0,
        "failed_emails_recently": 0,
        "work": [],
        "stuck_fulfilments": 0,
        "since_handled_s": {},
        "minutes": [],
    }
    return Figures(**(healthy | changes))


def waiting(lag: int, seconds_behind: float) -> list[GroupOnTopic]:
    return [group(partition(lag=lag, seconds_behind=seconds_behind))]


def work(kind: str, *backlog: float, failed: int = 0) -> list[WorkOfKind]:
    return [WorkOfKind(kind_named(kind), Backlog(*backlog), failed)]


UNREMARKABLE = {
    "nothing happens": figures(),
    "messages are on their way": figures(groups=waiting(50, 9.9)),
    "the age of the oldest cannot be read": figures(groups=[group(partition(lag=3, seconds_behind=None))]),
    "the group's members are known": figures(groups=[group(members=[MEMBER])]),
    "an unread partition is empty": figures(groups=[group(NEVER_READ_EMPTY)]),
    "events are on their way to Kafka": figures(outbox=Outbox(50, 9.9)),
    "messages were parked long ago": figures(parked=3),
    "e-mails are tried again": figures(emails=Backlog(50, 3_600.0)),
    "e-mails failed long ago": figures(failed_emails=3),
    "commands are under way": figures(work=work("payments", 50, 50.0, failed=3)),
    "deadlines are far": figures(work=work("fulfilment_deadlines", 50, 900.0, 10.0)),
}
LAG = ("lag", "lag-grows")
EMAILS = "e-mails-do-not-arrive"
OUTBOX = ("pending", "outbox-pending-grows")
COMMANDS = ("commands", "commands-to-providers-wait")
STUCK = ("stuck", "a-fulfilment-is-stuck")
FINDINGS: list[tuple[Figures, tuple[str, str], str, str]] = [
    (figures(groups=waiting(50, 14)), LAG, "warning", "Nothing was handled for 14 s; 50 messages wait."),
    (figures(groups=waiting(1, 60)), LAG, "warning", "Nothing was handled for 60 s; 1 message waits."),
    (figures(groups=waiting(1_234, 60.1)), LAG, "critical", "Nothing was handled for 60 s; 1,234 messages wait."),
    (figures(groups=waiting(5, 7_300)), LAG, "critical", "Nothing was handled for 15 min; 5 messages wait."),
    (
        figures(groups=waiting(50, 14), since_handled_s={GROUP: 14.5}),
        *(LAG, "warning", "Nothing was handled for 14 s; 50 messages wait."),
    ),
    (figures(groups=waiting(12_345, 70)), LAG, "critical", "Nothing was handled for 70 s; 12,345 messages wait."),
    (
        figures(groups=waiting(50, 74), since_handled_s={GROUP: 0.5}),
        *(LAG, "critical", "50 messages wait, the oldest for 74 s."),
    ),
    (
        figures(groups=waiting(1, 14), since_handled_s={GROUP: 0.5}),
        *(LAG, "warning", "1 message has waited for 14 s."),
    ),
    (
        figures(groups=[group(partition(0, lag=2, seconds_behind=11), partition(1, lag=3, seconds_behind=130))]),
        *(LAG, "critical", "Nothing was handled for 2 min; 5 messages wait."),
    ),
    (figures(groups=[group(members=[])]), LAG, "critical", "No consumer is running; 0 messages wait."),
    (
        figures(groups=[group(partition(lag=1, seconds_behind=99), members=[])]),
        *(LAG, "critical", "No consumer is running; 1 message waits."),
    ),
    (
        figures(groups=[group(partition(), NEVER_READ)]),
        *(LAG, "warning", "The group has never read a record of order-events[2]."),
    ),
    (
        figures(groups=[group(), group(partition(lag=9, seconds_behind=15), name="sales")]),
        *(LAG, "warning", "sales: Nothing was handled for 15 s; 9 messages wait."),
    ),
    (
        figures(groups=None, outbox=Outbox(1, 3)),
        *(("lag", "kafka-is-away"), "critical"),
        "Kafka does not answer; orders are accepted, and their events wait in the outbox.",
    ),
    (figures(outbox=Outbox(3, 10.1)), OUTBOX, "warning", "3 events wait for Kafka, the oldest for 10 s."),
    (figures(outbox=Outbox(1, 61)), OUTBOX, "critical", "1 event waits for Kafka, for 61 s."),
    (figures(outbox=Outbox(10_000, 400)), OUTBOX, "critical", "10,000+ events wait for Kafka, the oldest for 6 min."),
    (
        figures(parked=2, parked_recently=2),
        *(("parked", "dead-letters-appear"), "warning"),
        "2 messages were parked in the last 15 minutes, because they can never be sent.",
    ),
    (figures(open_letters=1), ("letters", "dead-letters-appear"), "warning", "1 dead letter is open."),
    (figures(open_letters=12), ("letters", "dead-letters-appear"), "warning", "12 dead letters are open."),
    (figures(emails=Backlog(1, 3_601)), ("emails", EMAILS), "warning", "1 e-mail waits, for 60 min."),
    (
        figures(emails=Backlog(10_000, 90_000)),
        *(("emails", EMAILS), "warning"),
        "10,000+ e-mails wait, the oldest for 25 h.",
    ),
    (
        figures(failed_emails=9, failed_emails_recently=1),
        *(("failed_emails", EMAILS), "warning"),
        "1 e-mail failed for good in the last 15 minutes.",
    ),
    (
        figures(failed_emails=9, failed_emails_recently=2),
        *(("failed_emails", EMAILS), "warning"),
        "2 e-mails failed for good in the last 15 minutes.",
    ),
    (
        figures(work=work("payments", 3, 301.0)),
        *(COMMANDS, "critical", "3 commands to payments wait, the oldest for 5 min."),
    ),
    (figures(work=work("shipping", 1, 51.0)), COMMANDS, "warning", "1 command to shipping waits, for 51 s."),
    (
        figures(work=work("fulfilment_deadlines", 9, 900.0, 61.0)),
        *(
            ("stuck", "checkouts-stand-still"),
            "critical",
            "A deadline of a fulfilment passed 61 s ago, and no worker has taken it.",
        ),
    ),
    (figures(stuck_fulfilments=1), STUCK, "critical", "1 fulfilment is stuck."),
    (figures(stuck_fulfilments=12), STUCK, "critical", "12 fulfilments are stuck."),
]


@pytest.mark.parametrize("healthy", UNREMARKABLE.values(), ids=UNREMARKABLE)
def test_an_unremarkable_state_has_no_finding(healthy: Figures) -> None:
    assert judge(healthy) == []


@pytest.mark.parametrize(("broken", "place", "level", "sentence"), FINDINGS, ids=[one[-1] for one in FINDINGS])
def test_a_finding_says_what_is_wrong(broken: Figures, place: tuple[str, str], level: Any, sentence: str) -> None:
    card, section = place
    assert judge(broken) == [Finding(level, card, section, sentence)]


def test_the_worst_finding_comes_first() -> None:
    found = judge(figures(groups=waiting(3, 14), open_letters=2, outbox=Outbox(5, 99)))
    assert [(one.level, one.card) for one in found] == [
        ("critical", "pending"),
        ("warning", "lag"),
        ("warning", "letters"),
    ]


def test_a_finding_is_in_the_users_language() -> None:
    with translation.override("ko"):
        (found,) = judge(figures(groups=waiting(1_234, 14)))
    assert found.sentence == "14초 동안 아무것도 처리되지 않았습니다. 메시지 1,234건이 기다리고 있습니다."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "119 min"), (7_200, "2 h"), (172_800, "2 d")],
)
def test_a_duration_has_the_largest_fitting_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
