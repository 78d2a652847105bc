"""Supervisor for the processes of `make run`. It restarts a process that dies, and gives up if one keeps dying.

One thread per process starts it, forwards its output and restarts it. A paused process is ended, and started again
when it is resumed. `lifeline` ends all processes if the supervisor itself is killed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Condition, Thread
from types import FrameType
from typing import IO

from commerce.devserver import lifeline

STOP_TIMEOUT_S = 10.0
"""Seconds that a process has to finish before the supervisor kills it."""
RESTART_PAUSE_S = 1.0
QUICK_DEATH_S = 10.0
"""A death within this many seconds of the start counts as quick."""
MAX_QUICK_DEATHS = 5
"""The supervisor stops restarting a process after this many deaths in a row, each within `QUICK_DEATH_S` of a start."""
POLL_INTERVAL_S = 0.5
"""Longest time from a signal until the main thread runs its handler, in seconds."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SUPERVISOR_NAME = "system"
COLOURS = (36, 33, 35, 32, 34)
"""ANSI colour codes for the names of processes on a terminal."""


@dataclass(frozen=True)
class Line:
    """One line of output of a process or of the supervisor."""

    name: str
    text: str


@dataclass(frozen=True)
class Ended:
    """The report of a process's thread to the supervisor: the process has ended, and is not started again."""

    name: str
    returncode: int


@dataclass(frozen=True)
class Stop:
    """A request to end all processes."""

    reason: str
    by_signal: bool


Event = Line | Ended | Stop


class Supervisor:
    """Runs the added processes until a signal, a call of `fail`, or the end of a process that is not started again."""

    def __init__(self) -> None:
        # A SimpleQueue, because a signal handler may call `put` while it interrupts another `put`.
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._processes: dict[str, Process] = {}
        self._is_ending = False
        self.stopped_by_signal = False
        """Whether a signal was the first reason to end the processes."""

    def add_process(self, name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self._processes[name] = Process(name, command, env=env, cwd=cwd, report=self._events.put)

    def loop(self) -> None:
        """Run the processes until all of them have ended. It sets signal handlers, so call it in the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._stop_by_signal)
        threads = [Thread(target=process.run, name=name, daemon=True) for name, process in self._processes.items()]
        for thread in threads:
            thread.start()
        running = set(self._processes)
        try:
            while running:
                match self._next_event():
                    case Line(name, text):
                        self._print(name, text)
                    case Ended(name, returncode):
                        running.remove(name)
                        self._print(SUPERVISOR_NAME, f"{name} stopped (rc={returncode})")
                        self._end()
                    case Stop(reason, by_signal):
                        self._print(SUPERVISOR_NAME, reason)
                        self.stopped_by_signal = self.stopped_by_signal or (by_signal and not self._is_ending)
                        self._end()
        finally:
            self._end()
            for thread in threads:
                thread.join()

    def switch(self, name: str, *, on: bool) -> None:
        """Resume or pause the process `name`, and return without waiting for it."""
        self._processes[name].switch(on=on)

    def state(self, name: str) -> str:
        """Return the state of the process `name`: `on`, `off`, `starting` or `stopping`."""
        return self._processes[name].state

    def fail(self, reason: str) -> None:
        """Make `loop` print `reason` and end all processes. Return without waiting for that."""
        self._events.put(Stop(reason, by_signal=False))

    @property
    def pids(self) -> dict[str, int]:
        """Return the pids of the running processes by name."""
        return {name: process.pid for name, process in self._processes.items() if process.pid is not None}

    def _next_event(self) -> Event | None:
        # The timeout matters: Python runs signal handlers in this thread, but a signal may wake another one.
        with suppress(Empty):
            return self._events.get(timeout=POLL_INTERVAL_S)
        return None

    def _stop_by_signal(self, number: int, frame: FrameType | None) -> None:
        self._events.put(Stop(f"{signal.Signals(number).name} received", by_signal=True))

    def _end(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            for process in self._processes.values():
                process.end()

    def _print(self, name: str, text: str) -> None:
        width = max(map(len, (SUPERVISOR_NAME, *self._processes)))
        prefix = f"{time.strftime('%H:%M:%S')} {name.ljust(width)} | "
        if name in self._processes and sys.stdout.isatty():
            colour = COLOURS[list(self._processes).index(name) % len(COLOURS)]
            prefix = f"\033[0m\033[{colour}m{prefix}\033[0m"
        for line in text.splitlines():
            print(prefix + line, flush=True)


class Process:
    """A supervised process.

    It ends for good when it exits with 0, when the supervisor ends, or after `MAX_QUICK_DEATHS`. A pause ends the
    process, too, but not for good.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, report: Callable[[Event], None]
    ) -> None:
        self._name = name
        self._command = command
        self._env = env
        self._cwd = cwd
        self._report = report
        self._changed = Condition()
        """Guards the attributes below. It is notified when the process is paused, resumed or ended."""
        self._is_wanted = True
        self._is_ending = False
        self._child: subprocess.Popen[bytes] | None = None
        self._paused_child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Keep the process running until it ends for good, and report its end."""
        returncode = 1
        quick_deaths = 0
        try:
            while child := self._start_when_wanted():
                started = time.monotonic()
                returncode = self._follow(child)
                if child is self._paused_child:
                    continue
                quick_deaths = quick_deaths + 1 if time.monotonic() - started < QUICK_DEATH_S else 0
                if returncode == 0 or self._is_ending or quick_deaths == MAX_QUICK_DEATHS:
                    break
                self._report(Line(self._name, f"died ({returncode}), starting it again"))
                with self._changed:
                    self._changed.wait_for(lambda: self._is_ending, RESTART_PAUSE_S)
        finally:
            self._report(Ended(self._name, returncode))

    def switch(self, *, on: bool) -> None:
        with self._changed:
            self._is_wanted = on
            self._changed.notify_all()
            if not on and self._child is not None:
                self._paused_child = self._child
                self._end_child()

    def end(self) -> None:
        """End the process for good, and return without waiting for it."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
            self._end_child()

    @property
    def pid(self) -> int | None:
        child = self._child
        return None if child is None else child.pid

    @property
    def state(self) -> str:
        if self._is_wanted:
            return "starting" if self._child is None else "on"
        return "off" if self._child is None else "stopping"

    def _start_when_wanted(self) -> "subprocess.Popen[bytes] | None":
        """Wait until the process is not paused, and start it. Return None if the supervisor ends instead."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_wanted or self._is_ending)
            if self._is_ending:
                return None
            self._child = child = lifeline.start(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
            )
        self._report(Line(SUPERVISOR_NAME, f"{self._name} started (pid={child.pid})"))
        return child

    def _follow(self, child: "subprocess.Popen[bytes]") -> int:
        """Forward the output of `child` until it ends. Kill the rest of its process group, and return its exit code."""
        assert child.stdout is not None
        reader = Thread(target=self._pass_on, args=(child.stdout,), daemon=True)
        reader.start()
        returncode = child.wait()
        # The workers of a killed web server would keep its port.
        _send(child, signal.SIGKILL)
        reader.join()
        with self._changed:
            self._child = None
        return returncode

    def _pass_on(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self._report(Line(self._name, line.decode(errors="replace")))

    def _end_child(self) -> None:
        if self._child is not None:
            Thread(target=_end, args=(self._child,), daemon=True).start()


def _end(child: "subprocess.Popen[bytes]") -> None:
    _send(child, signal.SIGTERM)
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _send(child, signal.SIGKILL)


def _send(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Send a signal to the process group of `child`."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)
