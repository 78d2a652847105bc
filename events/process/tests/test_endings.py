"""The end of a process after a signal, at its time limit, and by its watchdog. Each test runs a separate process."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from testkit.processes import lifeline

READY = "print('ready', flush=True)"
INSTALL = "from events.process import shutdown; shutdown.GRACE_S = 0.3; stop = shutdown.Shutdown()"
WAIT_IN_A_LIBRARY = (
    "import os, psycopg2; cursor = psycopg2.connect(os.environ['DATABASE_URL']).cursor();"
    f"{READY}; cursor.execute('SELECT pg_sleep(60)')"
)
WAIT = f"{READY}; stop.wait(60); print('finished')"
LOOP_FOR_EVER = f"{READY}\nwhile True: stop.wait(60)"


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def run(processes: list[subprocess.Popen[str]], *program: str) -> subprocess.Popen[str]:
    """Start a Python process, and wait until it has printed `ready`. Add it to `processes`, which the fixture ends."""
    process = lifeline.start(
        [sys.executable, "-c", "\n".join(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_loop_that_checks(processes: list[subprocess.Popen[str]], number: signal.Signals) -> None:
    process = run(processes, INSTALL, WAIT)
    process.send_signal(number)
    assert process.communicate(timeout=10)[0] == "finished\n"
    assert process.returncode == 0


def test_a_process_that_waits_inside_a_library_is_ended_in_time(processes: list[subprocess.Popen[str]]) -> None:
    process = run(processes, INSTALL, WAIT_IN_A_LIBRARY)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "the next process repeats uncommitted work" in errors


@pytest.mark.parametrize(("error", "code"), [("KeyError('colour')", 1), ("CommandError('at limit', returncode=3)", 3)])
def test_a_loop_that_hangs_after_another_failed_is_ended(
    processes: list[subprocess.Popen[str]], error: str, code: int
) -> None:
    process = run(
        processes,
        "from django.core.management import CommandError",
        "from events.process import together; together.GRACE_S = 0.3",
        INSTALL,
        f"def fail(): raise {error}",
        f"def hang(): {WAIT_IN_A_LIBRARY}",
        "together.run_together({'bad': fail, 'other': hang}, shutdown=stop)",
    )
    _, errors = process.communicate(timeout=10)
    assert process.returncode == code
    assert "the next process repeats uncommitted work" in errors
    assert error.partition("(")[0] in errors


def test_a_second_signal_ends_at_once(processes: list[subprocess.Popen[str]]) -> None:
    process = run(processes, INSTALL, "shutdown.GRACE_S = 60", LOOP_FOR_EVER)
    process.send_signal(signal.SIGTERM)
    # Two signals at the same moment would arrive as one.
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM


def test_a_command_without_work_ends_at_once(processes: list[subprocess.Popen[str]]) -> None:
    process = run(
        processes, "from events.process.shutdown import *", "end_at_once_until_ready()", READY, "signal.pause()"
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_the_watchdog_ends_a_stuck_call_and_shows_its_stack(processes: list[subprocess.Popen[str]]) -> None:
    process = run(
        processes,
        "from events.process.watchdog import Watchdog",
        "def spin():",
        f"    {READY}",
        "    while True: pass",
        "with Watchdog(what='Reading', limit=0.3).guard(): spin()",
    )
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "Reading has not returned for 0.3 s" in errors
    assert re.search(r"in spin\n", errors)


def test_the_watchdog_accepts_calls_that_return(processes: list[subprocess.Popen[str]]) -> None:
    process = run(
        processes,
        "import time",
        "from events.process.watchdog import Watchdog",
        "watchdog = Watchdog(what='Reading', limit=0.3)",
        READY,
        "for _ in range(100):",
        "    with watchdog.guard(): time.sleep(0.01)",
    )
    assert process.wait(10) == 0


def test_the_watchdog_does_not_count_frozen_time(processes: list[subprocess.Popen[str]]) -> None:
    process = run(
        processes,
        "import sys",
        "from events.process.watchdog import Watchdog",
        f"with Watchdog(what='Reading', limit=0.8).guard(): {READY}; sys.stdin.read(1)",
    )
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    time.sleep(1)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    assert process.poll() is None
