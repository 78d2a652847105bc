"""honcho, with restarts: a process that dies is started again; one that keeps dying brings everything down.

honcho runs each process from a helper process. Here the helper starts its process anew, ends it when all is to end,
and ends it when the supervisor itself is gone. A process can be paused: its helper ends it, and starts it when told.
"""

import datetime
import multiprocessing
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any

import honcho.manager
from honcho.printer import Message
from honcho.process import Popen, Process

STOP_TIMEOUT = 10
"""Seconds every process has to finish."""
RESTART_PAUSE = 1
"""Seconds."""
QUICK_DEATH = 10
"""Seconds of life below which a death counts as quick."""
MAX_QUICK_DEATHS = 5
PAUSE_POLL_S = 0.05
"""Seconds between two looks of a helper whether its process is wanted again."""


class Supervisor(honcho.manager.Manager):
    """Runs the added processes until a signal, or until one of them ends for good."""

    def __init__(self) -> None:
        super().__init__()
        # Closing our end tells every helper, and so does our death. An Event would wait for helpers that were killed.
        self._stopping, self._until_stopping = multiprocessing.Pipe(duplex=False)
        self._process_ctor = self._restarted_process
        self._switches: dict[str, Switch] = {}

    def _restarted_process(self, command: str, *, name: str, **options: Any) -> "RestartedProcess":
        wanted, switch = multiprocessing.Pipe(duplex=False)
        self._switches[name] = Switch(switch)
        return RestartedProcess(self._stopping, wanted, command, name=name, **options)

    def switch(self, name: str, *, on: bool) -> None:
        """Have the process `name` run or pause; returns at once. Not for two threads at a time.

        Raises OSError where its helper is gone.
        """
        switch = self._switches[name]
        if switch.on != on:
            switch.connection.send(on)
            switch.on = on

    def state(self, name: str) -> str:
        """`on`, `off`, `starting` or `stopping`: whether the process `name` is wanted, and whether it is there."""
        is_wanted, is_there = self._switches[name].on, _is_running(self._processes[name].get("pid"))
        if is_wanted:
            return "on" if is_there else "starting"
        return "stopping" if is_there else "off"

    def terminate(self) -> None:
        """Every helper ends its own process: some may not even have told us its pid."""
        self._until_stopping.close()

    def kill(self) -> None:
        """Every helper does so when `STOP_TIMEOUT` is over."""

    def fail(self, reason: str) -> None:
        """Bring everything down, as when a process ended for good."""
        self._system_print(f"{reason}\n")
        self.returncode = 1
        self.terminate()

    @property
    def pids(self) -> dict[str, int]:
        """Of the processes that run, by their names."""
        return {name: process["pid"] for name, process in self._processes.items() if "pid" in process}

    @property
    def stopped_by_signal(self) -> bool:
        return self.returncode in {known["rc"] for known in honcho.manager.SIGNALS.values()}

    def _start(self) -> None:
        super()._start()
        Thread(target=self._notice_dead_helpers, daemon=True).start()

    def _notice_dead_helpers(self) -> None:
        """A helper that was killed can neither restart its process nor say that it ended."""
        helpers = {process["process"].sentinel: name for name, process in self._processes.items()}
        while helpers:
            for sentinel in wait(list(helpers)):
                name = helpers.pop(sentinel)
                process = self._processes[name]
                process["process"].join()
                if process["process"].exitcode != 0:
                    with suppress(KeyError, ProcessLookupError):
                        os.killpg(process["pid"], signal.SIGKILL)
                    # honcho waits until it knows of every process that it was started, and that it stopped.
                    process.setdefault("pid", 0)
                    now = datetime.datetime.now()  # noqa: DTZ005 - as honcho does
                    self.events.put(Message("stop", {"returncode": 1}, now, name, None))


def _is_running(pid: int | None) -> bool:
    # A helper that was killed is said to have had the process 0.
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Switch:
    """The supervisor's end of what tells a helper whether its process is to run."""

    connection: Connection
    on: bool = True


class RestartedProcess(Process):
    """Ends for good when it exits with 0, when everything is being stopped, or after quick deaths in a row.

    What it does while it is being paused is no end.
    """

    def __init__(self, stopping: Connection, wanted: Connection, command: str, **options: Any) -> None:
        """`stopping` is readable as soon as everything is to end; `wanted` tells whether the process is to run."""
        # Without exec, signals would reach a shell and not the program.
        super().__init__(f"exec {command}", **options)
        self._stopping = stopping
        self._wanted = wanted
        self._is_wanted = True
        self._paused_child: Popen | None = None
        self._quick_deaths = 0
        self._child_ctor = self._start

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        Thread(target=self._follow_switch, daemon=True).start()
        while True:
            started = time.monotonic()
            super().run(events, ignore_signals)
            if self._child is self._paused_child:
                if self._is_wanted_again():
                    continue
                break
            if not self._must_restart(lived=time.monotonic() - started):
                break
            self._send_message(f"died ({self._child.returncode}), starting it again\n".encode())
            if self._stopping.poll(RESTART_PAUSE):
                break
            if not self._is_wanted and not self._is_wanted_again():
                break
        super()._send_message({"returncode": self._child.returncode}, type="stop")

    def _must_restart(self, *, lived: float) -> bool:
        self._quick_deaths = self._quick_deaths + 1 if lived < QUICK_DEATH else 0
        return self._child.returncode != 0 and not self._stopping.poll() and self._quick_deaths < MAX_QUICK_DEATHS

    def _follow_switch(self) -> None:
        with suppress(EOFError):
            while True:
                self._is_wanted = self._wanted.recv()
                if not self._is_wanted and self._child is not None:
                    self._pause(self._child)

    def _pause(self, child: Popen) -> None:
        """The child has to be gone before a process can be wanted again, so that there are never two."""
        self._paused_child = child
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def _is_wanted_again(self) -> bool:
        """Waits for it; False where everything is to end."""
        while not self._is_wanted:
            if self._stopping.poll(PAUSE_POLL_S):
                return False
        return not self._stopping.poll()

    def _start(self, *arguments: Any, **options: Any) -> Popen:
        self._child = child = Popen(*arguments, **options)
        if not self._is_wanted:
            # It became unwanted before there was a child to end.
            Thread(target=self._pause, args=(child,), daemon=True).start()
        Thread(target=self._stop_when_told, args=(child,), daemon=True).start()
        Thread(target=self._end_children_of, args=(child,), daemon=True).start()
        return child

    def _stop_when_told(self, child: Popen) -> None:
        self._stopping.poll(None)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        time.sleep(STOP_TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def _end_children_of(self, child: Popen) -> None:
        """Workers of a web server that was killed would keep its port."""
        child.wait()
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def _send_message(self, data: Any, type: str = "line") -> None:
        """honcho brings everything down at the first `stop`, so that only the last end is one."""
        if type != "stop":
            super()._send_message(data, type)
