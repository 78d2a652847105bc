"""Admin's page of the event pipeline: a verdict, lag and members of each group, outbox, dead letters, leased work."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from commerce.operations.figures import Figures, WorkOfKind, read_figures
from commerce.operations.lag_history import SLOT_S, LagHistory, read_history
from commerce.operations.thresholds import (
    COMMANDS_NOT_DONE,
    DEAD_LETTERS,
    EMAILS_FAILING,
    EMAILS_NOT_SENT,
    FULFILMENT_STUCK,
    LAG_GROWS,
    MESSAGES_PARKED,
    OLDEST_PENDING_TOO_OLD,
)
from commerce.operations.verdict import Finding, count, judge, limited_count
from events.models import DeadLetter
from events.subscriptions import subscriptions
from events.templatetags.moments import clock, duration, moment
from events.wire.timestamps import now, rfc3339

PERMISSIONS = (
    *("events.view_outboxevent", "events.view_deadletter", "notifications.view_emaildelivery"),
    *("payments.view_paymentcommand", "shipping.view_shippingcommand", "fulfilment.view_fulfilment"),
)


def page(request: HttpRequest) -> HttpResponse:
    _require_permission(request)
    context = {**admin.site.each_context(request), **summary(), "title": _("Event pipeline")}
    return TemplateResponse(request, "commerce/pipeline.html", context)


def state(request: HttpRequest) -> JsonResponse:
    """Return the page's figures and the verdict on them, as JSON for its script. Only the text `at` is HTML."""
    _require_permission(request)
    figures = read_figures()
    history = read_history()
    findings = judge(figures)
    return JsonResponse(
        {
            "at": moment(now()),
            "kafka": "down" if figures.groups is None else "up",
            "verdict": _verdict(findings),
            "cards": _cards(figures, findings),
            "groups": [group.as_json() for group in figures.groups or []],
            "work": [_row_of_work(one) for one in figures.work],
            "minutes": [one._asdict() | {"start": rfc3339(one.start)} for one in figures.minutes],
            "lag": {
                "start": rfc3339(history.slots[0]),
                "slotSeconds": SLOT_S,
                "slots": len(history.slots),
                "groups": history.groups,
            },
            "texts": {"minutes": _text_of_minutes(figures), "lag": _text_of_lag(history)},
        }
    )


def may_view(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Return whether the user may view the page. It requires the permission to view all rows that the page counts."""
    return user.has_perms(PERMISSIONS)  # type: ignore[union-attr]


def summary() -> dict[str, Any]:
    """Return the context of the template `commerce/pipeline_summary.html`. The page's script fills in the figures."""
    outbox = reverse("admin:events_outboxevent_changelist")
    letters = reverse("admin:events_deadletter_changelist")
    emails = reverse("admin:notifications_emaildelivery_changelist")
    fulfilments = reverse("admin:fulfilment_fulfilment_changelist")
    open_letters = {"state__exact": DeadLetter.State.OPEN.value}
    # The card counts the letters of the registered groups. The list can be filtered by one group.
    if len(groups := subscriptions()) == 1:
        open_letters["group"] = groups[0].group
    return {
        "cards": [
            _card("lag", _("Lag"), reverse("pipeline") + "#partitions", LAG_GROWS.section),
            _card("pending", _("Outbox pending"), f"{outbox}?state=pending", OLDEST_PENDING_TOO_OLD.section),
            _card("parked", _("Parked"), f"{outbox}?state=parked", MESSAGES_PARKED.section),
            _card("letters", _("Open dead letters"), f"{letters}?{urlencode(open_letters)}", DEAD_LETTERS.section),
            _card("emails", _("E-mails pending"), f"{emails}?state__exact=pending", EMAILS_NOT_SENT.section),
            _card("failed_emails", _("E-mails failed"), f"{emails}?state__exact=failed", EMAILS_FAILING.section),
            _card("commands", _("Commands pending"), reverse("pipeline") + "#work", COMMANDS_NOT_DONE.section),
            _card("stuck", _("Fulfilments stuck"), fulfilments, FULFILMENT_STUCK.section),
        ]
    }


def runbook(section: str) -> str:
    """Return the address of a section of the runbook in admin."""
    return f"{reverse('runbook')}#{section}"


def _require_permission(request: HttpRequest) -> None:
    if not may_view(request.user):
        raise PermissionDenied


def _card(name: str, label: str, rows: str, section: str) -> dict[str, str]:
    return {"name": name, "label": label, "rows": rows, "runbook": runbook(section)}


def _verdict(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the verdict on the pipeline: the level and sentence of the worst finding, and the other sentences."""
    if not findings:
        return {"level": "ok", "sentence": _("All is well."), "others": [], "runbook": None}
    worst, *others = findings
    return {
        "level": worst.level,
        "sentence": worst.sentence,
        "others": [one.sentence for one in others],
        "runbook": runbook(worst.section),
    }


def _cards(figures: Figures, findings: Sequence[Finding]) -> dict[str, dict[str, str]]:
    """Return what each card shows, by the card's name: a figure, its level (the colour) and a note."""
    groups, outbox = figures.groups, figures.outbox
    commands = [one.backlog for one in figures.work if one.is_commands]
    shown = {
        "lag": (
            "–" if groups is None else count(sum(group.lag for group in groups)),
            max((group.seconds_behind for group in groups or []), default=0.0),
        ),
        "pending": (limited_count(outbox.pending), outbox.oldest_pending_seconds),
        "parked": (limited_count(figures.parked), 0.0),
        "letters": (limited_count(figures.open_letters), 0.0),
        "emails": (limited_count(figures.emails.pending), figures.emails.oldest_pending_seconds),
        "failed_emails": (limited_count(figures.failed_emails), 0.0),
        "commands": (
            limited_count(sum(one.pending for one in commands)),
            max((one.oldest_pending_seconds for one in commands), default=0.0),
        ),
        "stuck": (limited_count(figures.stuck_fulfilments), 0.0),
    }
    # The findings begin with the worst, which has to remain.
    levels = {finding.card: finding.level for finding in reversed(findings)}
    return {
        name: {
            "figure": figure,
            "level": levels.get(name, "ok"),  # type: ignore[call-overload]
            "note": _("oldest for %s") % duration(oldest_s) if oldest_s >= 1 else "",
        }
        for name, (figure, oldest_s) in shown.items()
    }


def _row_of_work(work: WorkOfKind) -> dict[str, str]:
    """Return what the table of work shows of one kind.

    `rows` is the address of the kind's list in admin. It is empty if the kind has no list.
    """
    backlog = work.backlog
    try:
        rows = reverse(f"admin:{work.kind.model._meta.label_lower.replace('.', '_')}_changelist")
    except NoReverseMatch:
        rows = ""
    return {
        "kind": work.kind.name,
        "rows": rows,
        "pending": limited_count(backlog.pending),
        "oldest": duration(backlog.oldest_pending_seconds) if backlog.pending else "",
        "overdue": duration(backlog.overdue_seconds) if backlog.overdue_seconds >= 1 else "",
        "failed": limited_count(work.failed),
    }


def _text_of_minutes(figures: Figures) -> str:
    """Return a sentence that says what the chart of events per minute shows."""
    handled = {group: sum(one.handled[group] for one in figures.minutes) for group in figures.minutes[0].handled}
    # With one group, its name says nothing.
    said = ", ".join(
        count(events) if len(handled) == 1 else f"{group} {count(events)}" for group, events in handled.items()
    )
    return _("In %(minutes)d minutes: published %(published)s; handled: %(handled)s.") % {
        "minutes": len(figures.minutes),
        "published": count(sum(one.published for one in figures.minutes)),
        "handled": said or "0",
    }


def _text_of_lag(history: LagHistory) -> str:
    """Return sentences that say what the chart of the lag shows."""
    totals = {
        slot: sum(value or 0 for value in values)
        for slot, *values in zip(history.slots, *history.groups.values(), strict=True)
        if any(value is not None for value in values)
    }
    if not totals:
        return _("There was no reading in this time.")
    highest = max(totals, key=lambda slot: totals[slot])
    if not totals[highest]:
        return _("It was 0 at every reading.")
    return _("Highest: %(highest)s at %(time)s. Last: %(last)s.") % {
        "highest": count(totals[highest]),
        "time": clock(highest),
        "last": count(list(totals.values())[-1]),
    }
