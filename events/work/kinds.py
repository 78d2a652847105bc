"""Kinds of leased work, which the apps register in their modules `work.py`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core.exceptions import ImproperlyConfigured
from prometheus_client import Counter

from events.work.models import WorkT
from events.work.outcomes import Cancelled, Done, Failed, Outcome, TryAgain

LABELS: dict[type[Outcome], str] = {Done: "done", Failed: "failed", Cancelled: "cancelled", TryAgain: "retried"}
LOST = "lost"
"""Label of an outcome that was not recorded, because the row no longer had the worker's lease."""

Act = Callable[[WorkT], Outcome]
Results = list[tuple[WorkT, Outcome]]


def record_nothing(results: object) -> None:
    """Do nothing. This is the `record` of a kind of work whose outcomes have no further effect."""


def refuse_nothing(claimed: object) -> Mapping[int, str]:
    """Return no reasons. This is the `refuse` of a kind of work whose workers may do every piece."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[WorkT]):
    """One kind of leased work: its table, how one piece of work is done, and what follows from the outcomes."""

    name: str
    """Name of this kind of work in log lines and metrics."""
    model: type[WorkT]
    session: Callable[[], AbstractContextManager[Act[WorkT]]]
    """Return a context manager that yields the function that does one piece of work outside of any transaction. The
    context manager may keep a connection, which it opens for the first piece. If a worker dies, its piece is
    done again.

    A worker with a `concurrency` of 1 calls `session` for each batch. A worker with a higher one calls it once in each
    `run` or `sweep`, and several threads call the yielded function."""
    refuse: Callable[[Sequence[WorkT]], Mapping[int, str]] = refuse_nothing
    """Return why claimed pieces must not be done, by primary key. A piece with a reason fails untried. A worker
    calls `refuse` after each claim, in the thread that claims, so that it may use the database.
    It raises no other exception than django.db.Error."""
    record: Callable[[Results[WorkT]], None] = record_nothing
    """Record what follows from the outcomes, such as messages, in the transaction that records the outcomes. Lost
    outcomes are left out. If `record` fails for an outcome, the worker records `TryAgain` in its place."""
    outcomes_total: Counter
    """Counter of outcomes. Its label is the outcome: done, failed, cancelled, retried, or lost with its lease."""
    lease_s: float
    """Seconds for which a worker claims a batch."""
    action_s: float
    """Longest expected time of one piece of work, in seconds. A worker begins no piece that could then last beyond its
    lease, but does not interrupt one that takes longer than this time."""
    first_pause_s: float
    """Longest pause before the second attempt, in seconds. It doubles with each attempt, up to `last_pause_s`. Half of
    each pause is random."""
    last_pause_s: float
    batch_size: int = 50
    concurrency: int = 1
    """Number of pieces of work that one worker does at a time. With more than 1, each piece gets a thread, and the
    function that does it must not use the database."""

    def __post_init__(self) -> None:
        """Export all outcomes as 0: Prometheus does not see the first increment of a new counter."""
        for label in (*LABELS.values(), LOST):
            self.outcomes_total.labels(label)


KindT = TypeVar("KindT", bound=Kind[Any])
_kinds: dict[str, Kind[Any]] = {}


class UnknownKind(Exception):
    """No app has registered a kind of work with this name."""


def register(kind: KindT) -> KindT:
    """Add `kind` to the registry, and return it. Raises ImproperlyConfigured if its name is taken."""
    if _kinds.setdefault(kind.name, kind) is not kind:
        raise ImproperlyConfigured(f"Two kinds of work have the name {kind.name!r}: give one of them another name.")
    return kind


def kinds() -> list[Kind[Any]]:
    """Return the registered kinds, sorted by name."""
    return [kind for _, kind in sorted(_kinds.items())]


def kind_named(name: str) -> Kind[Any]:
    """Return the kind with this name. Raises UnknownKind."""
    try:
        return _kinds[name]
    except KeyError:
        known = ", ".join(sorted(_kinds)) or "none"
        raise UnknownKind(f"There is no kind of work {name!r}. Registered kinds: {known}.") from None
