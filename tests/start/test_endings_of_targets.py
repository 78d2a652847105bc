"""Long-running targets of the Makefile leave no process after a signal to `make` or to the program that it started."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from commerce.devserver import lifeline
from commerce.devserver.embedded_postgres import data_home
from testkit.processes import CHECKOUT, free_port
from testkit.waiting import wait_until
from testkit.whole_run import copy_checkout, environment

LIBRARIES = CHECKOUT / "var" / "kafka" / "libs"
"""The folder of Apache Kafka's libraries. It exists if Kafka has been fetched."""
NO_JAVA = {} if LIBRARIES.is_dir() else {"JAVA_HOME": "/nowhere"}
"""Environment variables that keep a target from fetching Apache Kafka, which needs Java.

Empty if Kafka has been fetched already.
"""
MARK = "COMMERCE_TEST_MARK"
"""Environment variable that every process of a `make` target inherits.

The test finds the processes by it, even those whose parent has ended.
"""
GONE_WITHIN_S = 40
"""Longest time that the tests wait for processes to end, in seconds.

The supervisor and the keeper process kill a process that has not ended 10 seconds after its stop signal.
"""
NESTED = "nested"
"""Name of the folder for the temporary files of a nested pytest process, which the test kills.

The nested process copies the repository into subfolders of this folder.
"""
A_RUN_WITHIN_A_TEST = f"tests/start/test_run.py -k restarts_dead_processes -p no:cacheprovider --basetemp={NESTED}"


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    copy_checkout(tmp_path)
    for part in ("Makefile", "benchmarks", "testkit", "tests", "conftest.py", "pytest.ini"):
        copy = shutil.copytree if (CHECKOUT / part).is_dir() else shutil.copy
        copy(CHECKOUT / part, tmp_path / part)
    if LIBRARIES.is_dir():
        (tmp_path / "var" / "kafka").mkdir(parents=True)
        (tmp_path / "var" / "kafka" / "libs").symlink_to(LIBRARIES)
    yield tmp_path
    for used in (tmp_path, *(tmp_path / NESTED).glob("*")):
        shutil.rmtree(data_home(used), ignore_errors=True)


class Target:
    """A running `make TARGET` in a copy of the checkout."""

    def __init__(self, checkout: Path, target: str, **env: str) -> None:
        self._mark = uuid4().hex
        self._log = checkout / "target.log"
        installed = ["--old-file=.venv/run-installed", "--old-file=.venv/installed"]
        catalogue = "--old-file=commerce/locale/ko/LC_MESSAGES/django.mo"
        # `nohup` would let the target ignore the signal.
        words = ["env", "--default-signal=HUP", "make", target]
        words += [f"BIN={Path(sys.executable).parent}", f"PYTHON={sys.executable}"]
        with self._log.open("wb") as output:
            self.make = subprocess.Popen(
                [*words, *installed, catalogue],
                cwd=checkout,
                env=environment() | {MARK: self._mark} | env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._seen: set[psutil.Process] = set()

    def processes(self) -> set[psutil.Process]:
        """Return all processes of the target that run (no zombies), including those found by earlier calls."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    self._seen |= {process, *process.children(recursive=True)}
        return {process for process in self._seen if _runs(process)}

    def runs(self, *programs: str) -> bool:
        """Return whether each program has a process. Raises RuntimeError with the log's end if the target has ended."""
        if self.make.poll() is not None:
            raise RuntimeError(self._log.read_text()[-3000:])
        lines = [" ".join(_words(process)) for process in self.processes()]
        return all(any(program in line for line in lines) for program in programs)

    @property
    def program(self) -> psutil.Process:
        """Return the process that `make` has started."""
        (program,) = psutil.Process(self.make.pid).children()
        return program


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return list(process.cmdline())
    return []


POSTGRES, WEB, CONSUMER, KEEPER = "/bin/postgres -D", "--bind 127.0.0.1:", "manage.py consume ", "lifeline.py"
TARGETS = {
    "run": ({}, (POSTGRES, WEB, CONSUMER)),
    "bench": ({"ONLY": "orders-list", **NO_JAVA}, (POSTGRES, WEB)),
    "test": ({"PYTEST_ADDOPTS": A_RUN_WITHIN_A_TEST}, (POSTGRES, WEB, CONSUMER)),
}


@pytest.mark.parametrize(
    ("target", "number", "receiver"),
    [
        ("run", signal.SIGKILL, "make"),
        ("run", signal.SIGKILL, "its program"),
        ("bench", signal.SIGTERM, "make"),
        ("bench", signal.SIGKILL, "make"),
        ("bench", signal.SIGHUP, "its program"),
        ("test", signal.SIGTERM, "make"),
        ("test", signal.SIGKILL, "its program"),
    ],
)
def test_an_ended_target_leaves_no_process(target: str, number: signal.Signals, receiver: str, checkout: Path) -> None:
    env, programs = TARGETS[target]
    running = Target(checkout, target, PORT=str(free_port()), **env)
    try:
        wait_until(lambda: running.runs(KEEPER, *programs), timeout=120)
        os.kill(running.make.pid if receiver == "make" else running.program.pid, number)
        running.make.wait(GONE_WITHIN_S)
        wait_until(lambda: not running.processes(), timeout=GONE_WITHIN_S)
    finally:
        _kill(running)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_apache_kafka_ends_with_its_make(number: signal.Signals, checkout: Path) -> None:
    if not LIBRARIES.is_dir():
        pytest.skip("Apache Kafka has not been fetched: run `make test-kafka`")
    running = Target(checkout, "kafka", KAFKA_PORT="0")
    try:
        wait_until(lambda: running.runs(KEEPER, "kafka.Kafka"), timeout=60)
        os.kill(running.make.pid, number)
        wait_until(lambda: not running.processes(), timeout=GONE_WITHIN_S)
    finally:
        _kill(running)


def _kill(running: Target) -> None:
    for process in running.processes():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    running.make.wait()


CHILD = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {CHILD}"
PARENT = """
import subprocess, sys
from commerce.devserver import lifeline
children = [lifeline.start([sys.executable, "-c", code], stdout=subprocess.PIPE) for code in sys.argv[1:]]
assert all(child.stdout.readline() == b"up\\n" for child in children)
print(*(child.pid for child in children), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("code", [CHILD, STUBBORN])
def test_children_of_a_killed_program_end(code: str, frozen: bool) -> None:
    parent = lifeline.start(
        [sys.executable, "-c", PARENT, code, code], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    if frozen:
        for child in children:
            child.suspend()
    parent.kill()
    parent.communicate()
    wait_until(lambda: not any(map(_runs, children)), timeout=lifeline.STOP_TIMEOUT_S + 10)


KILLED_AFTER_THE_FORK = """
import os, signal, subprocess, sys
from commerce.devserver import lifeline

class Forked(subprocess.Popen):
    def _execute_child(self, *arguments):
        super()._execute_child(*arguments)
        os.write(1, str(self.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)

lifeline._keeper()
subprocess.Popen = Forked
lifeline.start([sys.executable, "-c", sys.argv[1]], stdout=subprocess.DEVNULL)
"""


@pytest.mark.parametrize("code", [CHILD, STUBBORN])
def test_a_program_killed_while_it_starts_a_server_leaves_none(code: str) -> None:
    parent = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_THE_FORK, code], cwd=CHECKOUT, stdout=subprocess.PIPE, check=False
    )
    assert parent.returncode == -signal.SIGKILL
    pid = int(parent.stdout)
    wait_until(lambda: not _lives(pid), timeout=lifeline.STOP_TIMEOUT_S + 10)


def _lives(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return _runs(psutil.Process(pid))
    return False


def test_a_server_inherits_no_pipe_and_no_ignored_signal() -> None:
    # The shell shows the inherited signals, because unlike Python it leaves them unchanged.
    shown = ["sh", "-c", "grep SigIgn /proc/$$/status; ls /proc/$$/fd"]
    bare = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    started = lifeline.start(shown, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert started.communicate()[0] == bare


def test_a_server_that_does_not_exist_is_one_clear_line() -> None:
    started = lifeline.start(["/nowhere/server"], stderr=subprocess.PIPE, text=True)
    assert started.communicate()[1] == "Cannot start /nowhere/server: No such file or directory\n"
    assert started.returncode == 1
