"""SIGTERM ends consumer and relay with exit code 0 in time, also during faults."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from commerce.devserver import lifeline
from testkit.database import oldest_pending_seconds, rows
from testkit.foreign_events import all_notified_once, foreign_event, send
from testkit.postgres import CrashingPostgres
from testkit.processes import CHECKOUT, STOP_TIMEOUT_S, ProductProcess
from testkit.proxy import Proxy
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, RELAY, SHORT_SESSION, Site, Start
from tests.faults.groups import shares
from tests.faults.oracle import Oracle, lag
from tests.faults.troubled_database import NOTIFICATIONS, OUTBOX, locked, waiting_for

Pair = tuple[ProductProcess, ProductProcess]

CLEAN_EXIT, FORCED_EXIT = 0, 128 + signal.SIGTERM
"""Exit codes of a process after SIGTERM: it has ended by itself, or it was forced to end."""
AT_ONCE_S = 1
SIGNAL_PAUSE_S = 0.2
"""Seconds between two signals, because the kernel merges two signals at the same moment into one."""
INTERPRETER_START_SHARE = 0.25
"""Largest CPU time from a command's start until it has a handler for SIGTERM, as a share of `start_cpu_seconds`."""
_names = (f"command-{number}" for number in count())


def end(*processes: ProductProcess | subprocess.Popen[bytes], within: float = STOP_TIMEOUT_S) -> list[int]:
    """Send SIGTERM to the processes, and return their exit codes.

    Raises subprocess.TimeoutExpired if one of them still runs after `within` seconds.
    """
    started = [process.process if isinstance(process, ProductProcess) else process for process in processes]
    deadline = time.monotonic() + within
    for process in started:
        process.terminate()
    return [process.wait(max(0, deadline - time.monotonic())) for process in started]


def start_pair(start: Start) -> Pair:
    """Start a consumer and a relay, and wait until both are connected to the database."""
    names = next(_names), next(_names)
    pair = (
        start(*CONSUME, PGAPPNAME=names[0], **SHORT_SESSION),
        start(*RELAY, PGAPPNAME=names[1], OUTBOX_RELAY_GRACE_SECONDS="0", OUTBOX_RELAY_INTERVAL_SECONDS="0.2"),
    )
    sql = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name = ANY(%(names)s)"
    wait_until(lambda: len(rows(sql, names=list(names))) == 2)
    return pair


@pytest.fixture
def pair(site: Site, start: Start) -> Pair:
    """Start a consumer that is alone in its group, and a relay. Return both, the consumer first."""
    site.consumer.stop()
    pair = start_pair(start)
    wait_until(lambda: len(shares()) == 1)
    return pair


@pytest.fixture
def hanging(site: Site, pair: Pair) -> Iterator[Pair]:
    """Let consumer and relay hang on locked tables. The consumer has polled a batch that it cannot save.

    After the test, another consumer saves the batch.
    """
    event = foreign_event()
    with locked(NOTIFICATIONS), locked(OUTBOX):
        send([event])
        wait_until(lambda: waiting_for(NOTIFICATIONS) == 1 and waiting_for(OUTBOX) == 2)
        yield pair
    site.consumer.start()
    wait_until(lambda: all_notified_once([event]))


def test_idle_commands_end_at_once(pair: Pair) -> None:
    assert end(*pair, within=3) == [CLEAN_EXIT] * 2
    assert pair[0].says("Stopped cleanly")
    assert not pair[0].says("Traceback")
    assert pair[1].log.read_text() == ""


def test_an_ending_consumer_saves_and_commits_its_batch(site: Site, oracle: Oracle, pair: Pair) -> None:
    consumer, _ = pair
    with locked(NOTIFICATIONS):
        event = foreign_event()
        send([event])
        wait_until(lambda: waiting_for(NOTIFICATIONS))
        consumer.process.terminate()
        time.sleep(2)
        assert consumer.process.poll() is None
    assert consumer.process.wait(STOP_TIMEOUT_S) == CLEAN_EXIT
    assert all_notified_once([event])
    assert lag() == 0


def test_commands_that_wait_for_the_database_end_at_once(
    site: Site, oracle: Oracle, pair: Pair, postgres: CrashingPostgres
) -> None:
    consumer, relay = pair
    with locked(NOTIFICATIONS):
        oracle.place_orders(site.web.url, 8)
        wait_until(lambda: waiting_for(NOTIFICATIONS))
        postgres.crash()
        wait_until(lambda: consumer.says(" again in ") and relay.says("Events stay pending: "))
    assert end(*pair, within=3) == [CLEAN_EXIT] * 2
    postgres.start()
    site.consumer.start()
    assert oracle.settle_and_compare().notifications == 8


@pytest.mark.parametrize("fault", ["refuse", "swallow"])
def test_commands_that_have_never_seen_kafka_end_in_time(
    fault: str, site: Site, oracle: Oracle, proxy: Proxy, start: Start
) -> None:
    getattr(proxy, fault)()
    oracle.place_orders(site.web.url, 8)
    assert end(*start_pair(start)) == [CLEAN_EXIT] * 2
    proxy.heal()
    assert oracle.settle_and_compare().notifications == 8


@pytest.mark.parametrize("fault", ["refuse", "swallow"])
def test_commands_whose_kafka_is_gone_end_in_time(
    fault: str, site: Site, oracle: Oracle, proxy: Proxy, pair: Pair
) -> None:
    site.relay.freeze()
    getattr(proxy, fault)()
    oracle.place_orders(site.web.url, 8)
    wait_until(lambda: oldest_pending_seconds() > 1)
    assert end(*pair) == [CLEAN_EXIT] * 2
    proxy.heal()
    site.relay.thaw()
    site.consumer.start()
    assert oracle.settle_and_compare().notifications == 8


def test_commands_in_a_database_that_hangs_end_in_time(hanging: Pair) -> None:
    assert end(*hanging) == [CLEAN_EXIT] * 2
    for process in hanging:
        assert process.says("the next process repeats uncommitted work")


def test_a_second_signal_ends_hanging_commands_at_once(hanging: Pair) -> None:
    for process in hanging:
        process.process.terminate()
    time.sleep(SIGNAL_PAUSE_S)
    assert end(*hanging, within=AT_ONCE_S) == [FORCED_EXIT] * 2


def is_gone(process: psutil.Process) -> bool:
    """Return whether the process has ended. A zombie, which its parent has not waited for, counts as ended."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_an_ending_consumer_leaves_no_child_behind(pair: Pair, start: Start) -> None:
    """At SIGTERM, the consumer's child process is trying a message that may have killed an earlier consumer."""
    killed, _ = pair
    with locked(NOTIFICATIONS):
        send([foreign_event()])
        wait_until(lambda: waiting_for(NOTIFICATIONS) == 1)
        killed.kill()
        consumer = start(*CONSUME, **SHORT_SESSION)
        # The killed consumer's session waits on: it notices the closed connection only after it gets the lock.
        wait_until(lambda: waiting_for(NOTIFICATIONS) == 2)
        _, *children = consumer.family()
        assert len(children) == 1
        assert end(consumer) == [CLEAN_EXIT]
        wait_until(lambda: all(is_gone(child) for child in children), timeout=AT_ONCE_S)


def catches_sigterm(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process has a handler for SIGTERM, see proc_pid_status(5)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def start_cpu_seconds() -> float:
    """Return the CPU time of `manage.py help` in seconds. Like every command, it loads Django and the apps."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "manage.py", "help"], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture
def typed(tmp_path: Path, site: Site) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that starts `manage.py COMMAND`, and returns the process once it has a handler for SIGTERM.

    The function raises AssertionError if the process has used too much CPU time by then.
    """
    started = []
    longest_cpu_seconds = INTERPRETER_START_SHARE * start_cpu_seconds()

    def typed(*command: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as output:
            words = [sys.executable, "manage.py", *command]
            process = lifeline.start(words, cwd=CHECKOUT, env=os.environ, stdout=output, stderr=output)
        started.append(process)
        wait_until(lambda: catches_sigterm(process))
        used = psutil.Process(process.pid).cpu_times()
        assert used.user + used.system < longest_cpu_seconds
        return process

    yield typed
    for process in started:
        process.kill()
        process.wait()


def test_commands_end_in_order_at_every_moment_of_their_start(
    typed: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    consumers = ["consume", settings.NOTIFICATION_CONSUMER_GROUP], ["consume_order_events"]
    for early in range(10):
        late = 19 - early
        both = consumers[early % 2], ["relay_outbox"]
        ended_early, ended_late = [typed(*command) for command in both], [typed(*command) for command in both]
        time.sleep(early / 10)
        assert end(*ended_early) == [CLEAN_EXIT] * 2, f"after {early / 10} s"
        time.sleep((late - early) / 10)
        assert end(*ended_late) == [CLEAN_EXIT] * 2, f"after {late / 10} s"
    assert "Traceback" not in (tmp_path / "log").read_text()
