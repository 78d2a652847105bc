"""How a consumer process ends."""

from collections.abc import Sequence

import pytest
from django.core.management import CommandError

from events.consuming import running
from events.kafka import KafkaError
from testkit.subscriptions import rows


class NoHandler:
    """Handles nothing, because nothing is read."""

    def decode(self, value: bytes | None) -> bytes | None:
        return value

    def save(self, values: Sequence[bytes | None]) -> None:
        raise AssertionError(values)


class ShutdownAfterOnePoll:
    """A stand-in for `Shutdown` without signal handlers. It lets the consumer start and poll once, and then stop."""

    def __init__(self) -> None:
        self._answers = iter([False, False])

    def requested(self) -> bool:
        return next(self._answers, True)


class FailingCommit:
    """A stand-in for `ReadAhead` whose last commit fails. It reads nothing."""

    def poll(self, *, timeout: float) -> list[object]:
        return []

    def close(self) -> None:
        raise KafkaError("the last commit failed")


@pytest.mark.django_db
def test_a_last_commit_that_fails_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "Shutdown", ShutdownAfterOnePoll)
    monkeypatch.setattr(running, "_join", lambda *_: FailingCommit())
    subscription = rows(NoHandler())
    with pytest.raises(CommandError, match=r"^Consuming order-events failed, start again: KafkaError: the last commit"):
        running.run(
            subscription,
            batch_size=500,
            until_caught_up=False,
            max_consecutive_dead_letters=1000,
            metrics_port=None,
            liveness_file=None,
        )
