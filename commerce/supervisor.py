"""honcho, with restarts: a process that dies is started again; one that keeps dying brings everything down."""

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from functools import partial
from multiprocessing.synchronize import Event
from threading import Thread
from typing import Any

import honcho.manager
from honcho.process import Popen, Process

# Every process has this many seconds to finish; honcho itself would give it 5.
honcho.manager.KILL_WAIT = 10

QUICK_DEATH = 10
"""Seconds of life below which a death counts as quick."""
MAX_QUICK_DEATHS = 5
RESTART_PAUSE = 1
"""Seconds."""


class Supervisor(honcho.manager.Manager):
    """Runs the added processes until a signal, or until one of them ends for good."""

    def __init__(self) -> None:
        super().__init__()
        self._stopping = multiprocessing.Event()
        self._process_ctor = partial(RestartedProcess, self._stopping)

    def terminate(self) -> None:
        self._stopping.set()
        super().terminate()

    def fail(self, reason: str) -> None:
        """Bring everything down, as when a process ended for good."""
        self._system_print(f"{reason}\n")
        self.returncode = 1
        self.terminate()

    @property
    def stopped_by_signal(self) -> bool:
        return self.returncode in {known["rc"] for known in honcho.manager.SIGNALS.values()}


class RestartedProcess(Process):
    """Ends for good when it exits with 0, when everything is being stopped, or after quick deaths in a row."""

    def __init__(self, stopping: Event, command: str, **options: Any) -> None:
        # Without exec, signals would reach a shell and not the program.
        super().__init__(f"exec {command}", **options)
        self._stopping = stopping
        self._quick_deaths = 0
        self._child_ctor = self._start

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        Thread(target=self._end_with_supervisor, daemon=True).start()
        while True:
            started = time.monotonic()
            super().run(events, ignore_signals)
            if not self._must_restart(lived=time.monotonic() - started):
                break
            self._send_message(f"died ({self._child.returncode}), starting it again\n".encode())
            time.sleep(RESTART_PAUSE)
        super()._send_message({"returncode": self._child.returncode}, type="stop")

    def _must_restart(self, *, lived: float) -> bool:
        self._quick_deaths = self._quick_deaths + 1 if lived < QUICK_DEATH else 0
        return self._child.returncode != 0 and not self._stopping.is_set() and self._quick_deaths < MAX_QUICK_DEATHS

    def _start(self, *arguments: Any, **options: Any) -> Popen:
        child = Popen(*arguments, **options)
        Thread(target=self._end_children_of, args=(child,), daemon=True).start()
        return child

    def _end_children_of(self, child: Popen) -> None:
        """Workers of a web server that was killed would keep its port."""
        child.wait()
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def _end_with_supervisor(self) -> None:
        """A supervisor that was killed leaves nothing behind."""
        supervisor = multiprocessing.parent_process()
        if supervisor is not None:
            supervisor.join()
            self._stopping.set()
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGTERM)

    def _send_message(self, data: Any, type: str = "line") -> None:
        """honcho brings everything down at the first `stop`, so that only the last end is one."""
        if type != "stop":
            super()._send_message(data, type)
