"""Several loops in one process: how they end, and when they show that they are alive."""

import threading

import pytest

from events.process.shutdown import Shutdown
from events.process.together import Heartbeats, run_together
from testkit.waiting import wait_until


class Flag:
    """A stand-in for `Shutdown` without signal handlers, with only the methods that these tests need."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self.request = self._requested.set
        self.requested = self._requested.is_set


@pytest.fixture
def shutdown() -> Shutdown:
    flag: object = Flag()
    return flag  # type: ignore[return-value]


def until_shutdown(shutdown: Shutdown) -> None:
    wait_until(shutdown.requested)


def test_loops_run_beside_one_another(shutdown: Shutdown) -> None:
    both = threading.Barrier(2, timeout=10)

    def loop() -> None:
        both.wait()

    run_together({"one": loop, "other": loop}, shutdown=shutdown)
    assert not shutdown.requested()


def test_a_single_loop_stays_in_the_calling_thread(shutdown: Shutdown) -> None:
    threads = []
    run_together({"one": lambda: threads.append(threading.current_thread())}, shutdown=shutdown)
    assert threads == [threading.current_thread()]


def test_a_loop_that_fails_ends_the_others(shutdown: Shutdown) -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_together({"sound": lambda: until_shutdown(shutdown), "broken": fail}, shutdown=shutdown)


def test_a_loop_that_ends_leaves_the_others_alone(shutdown: Shutdown) -> None:
    ended = threading.Event()

    def last() -> None:
        assert ended.wait(10)
        assert not shutdown.requested()

    run_together({"first": ended.set, "last": last}, shutdown=shutdown)


def test_a_member_that_hangs_stops_the_heartbeat() -> None:
    beats: list[None] = []
    heartbeats = Heartbeats(lambda: beats.append(None), ["one", "other"])
    for _ in range(3):
        heartbeats.beat_of("one")
    assert not beats
    heartbeats.beat_of("other")
    assert len(beats) == 1
    heartbeats.beat_of("other")
    assert len(beats) == 1


def test_a_member_that_has_ended_is_not_awaited() -> None:
    beats: list[None] = []
    heartbeats = Heartbeats(lambda: beats.append(None), ["one", "other"])
    heartbeats.beat_of("one")
    heartbeats.leave("other")
    heartbeats.beat_of("one")
    assert len(beats) == 2
