"""The supervisor of `make run` with processes that die, are paused, or do not end."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import psutil
import pytest

from commerce.devserver import supervisor as supervisors
from commerce.devserver.supervisor import MAX_QUICK_DEATHS, SIGNALS, Supervisor
from testkit.waiting import wait_until

RUN_FOREVER = "print('up', flush=True)\nimport time; time.sleep(600)"
IGNORE_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{RUN_FOREVER}"
PARENT = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "RESTART_PAUSE_S", 0.05)


@pytest.fixture(autouse=True)
def _restore_signal_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Return a function that runs a supervisor, with one process for each given Python program.

    The function also accepts a callable `act`, and calls it in a thread while the supervisor runs. It returns the
    supervisor's lines of output without their times.
    """

    def run(supervisor: Supervisor, *codes: str, act: Callable[[], None] = lambda: None) -> list[str]:
        for number, code in enumerate(codes):
            supervisor.add_process(f"p{number}", [sys.executable, "-uc", code], env=os.environ, cwd=Path("/"))
        failed: list[BaseException] = []

        def act_or_end() -> None:
            try:
                # The loop sets its signal handlers before it starts processes. Until then a signal would end the tests.
                wait_until(lambda: signal.getsignal(signal.SIGTERM) == supervisor._stop_by_signal)
                act()
            except BaseException as error:  # noqa: BLE001 - the main thread raises it
                failed.append(error)
                supervisor.fail("the test failed")

        actor = Thread(target=act_or_end)
        actor.start()
        supervisor.loop()
        actor.join()
        if failed:
            raise failed[0]
        return [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]

    return run


def is_on(supervisor: Supervisor, name: str = "p0") -> bool:
    return bool(supervisor.pids) and supervisor.state(name) == "on" and name in supervisor.pids


def test_a_process_that_dies_is_started_again(run: Callable[..., list[str]]) -> None:
    supervisor = Supervisor()

    def kill_it() -> None:
        wait_until(lambda: is_on(supervisor))
        first = supervisor.pids["p0"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: supervisor.pids.get("p0", first) != first)
        signal.raise_signal(signal.SIGTERM)

    lines = run(supervisor, RUN_FOREVER, act=kill_it)
    assert "p0     | died (-9), starting it again" in lines
    assert supervisor.stopped_by_signal


def test_quick_deaths_in_a_row_end_all_processes(run: Callable[..., list[str]]) -> None:
    supervisor = Supervisor()
    lines = run(supervisor, "print('no'); raise SystemExit(3)", RUN_FOREVER)
    assert lines.count("p0     | no") == MAX_QUICK_DEATHS
    assert "system | p0 stopped (rc=3)" in lines
    assert "system | p1 stopped (rc=-15)" in lines
    assert not supervisor.stopped_by_signal


def test_an_exit_with_0_ends_all_processes(run: Callable[..., list[str]]) -> None:
    supervisor = Supervisor()
    lines = run(supervisor, "print('done')", RUN_FOREVER)
    assert lines.count("p0     | done") == 1
    assert "system | p1 stopped (rc=-15)" in lines
    assert not supervisor.stopped_by_signal


def test_a_failure_ends_all_processes(run: Callable[..., list[str]]) -> None:
    supervisor = Supervisor()

    def fail() -> None:
        supervisor.fail("No order")
        signal.raise_signal(signal.SIGTERM)

    lines = run(supervisor, RUN_FOREVER, act=fail)
    assert "system | No order" in lines
    assert not supervisor.stopped_by_signal


def test_a_paused_process_is_off_until_it_is_resumed(run: Callable[..., list[str]]) -> None:
    supervisor = Supervisor()

    def pause_and_resume() -> None:
        wait_until(lambda: is_on(supervisor))
        first = psutil.Process(supervisor.pids["p0"])
        supervisor.switch("p0", on=False)
        wait_until(lambda: supervisor.state("p0") == "off")
        assert not first.is_running()
        supervisor.switch("p0", on=True)
        assert supervisor.state("p0") in ("starting", "on")
        wait_until(lambda: is_on(supervisor))
        assert supervisor.pids["p0"] != first.pid
        signal.raise_signal(signal.SIGINT)

    lines = run(supervisor, RUN_FOREVER, act=pause_and_resume)
    assert not any("died" in line for line in lines)
    assert supervisor.stopped_by_signal


def test_a_process_resumed_before_its_end_runs_once(run: Callable[..., list[str]]) -> None:
    supervisor = Supervisor()

    def hesitate() -> None:
        wait_until(lambda: is_on(supervisor))
        first = supervisor.pids["p0"]
        for on in (False, True, False, True):
            supervisor.switch("p0", on=on)
        wait_until(lambda: supervisor.pids.get("p0", first) != first)
        assert sum(RUN_FOREVER in child.cmdline() for child in psutil.Process().children()) <= 1
        signal.raise_signal(signal.SIGTERM)

    lines = run(supervisor, RUN_FOREVER, act=hesitate)
    assert sum("started" in line for line in lines) == 2


def test_a_process_that_does_not_end_is_killed(run: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "STOP_TIMEOUT_S", 0.5)
    supervisor = Supervisor()

    def stop() -> None:
        wait_until(lambda: is_on(supervisor))
        os.kill(supervisor.pids["p0"], signal.SIGSTOP)
        signal.raise_signal(signal.SIGHUP)

    assert "system | p0 stopped (rc=-9)" in run(supervisor, IGNORE_SIGTERM, act=stop)


def test_the_children_of_a_dead_process_end(run: Callable[..., list[str]]) -> None:
    lines = run(Supervisor(), PARENT)
    child = next(int(line.split("| ")[1]) for line in lines if line.startswith("p0"))
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
