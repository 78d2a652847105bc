"""No server outlives the program that started it, whichever way that program ends; kill -9 included.

The program holds one end of a pipe, and a small keeper process reads the other. When the program is gone, the pipe
ends, and the keeper ends every process group that the program has named. A program that `make` has started also
follows `make`: it ends in order when `make` is gone.

The keeper needs the standard library alone, because `make kafka` runs without `.venv`.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

STOP_TIMEOUT_S = 10
"""What every process has to finish, before it is killed."""
LOOK_EVERY_S = 0.5
FORCE_AFTER_S = 15
"""After its `make` is gone, a program has so long to end in order."""


def start(
    command: Sequence[str | Path], *, ended_by: signal.Signals = signal.SIGTERM, **options: Any
) -> subprocess.Popen[Any]:
    """Start `command` as the leader of a session of its own, which ends when this program is gone.

    Args:
        ended_by: the signal that ends it in order.
        options: those of subprocess.Popen.
    """
    keeper = _keeper()
    process = subprocess.Popen(command, start_new_session=True, **options)
    os.write(keeper, f"{process.pid} {ended_by.value}\n".encode())
    return process


def follow_make() -> None:
    """Send this program SIGTERM when the `make` that started it is gone, and kill it where that does not end it."""
    if "MAKELEVEL" in os.environ:
        threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP do what Ctrl-C does, so that the program cleans up. What is ignored stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _follow(make: int) -> None:
    while os.getppid() == make:
        time.sleep(LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(FORCE_AFTER_S)
    os.kill(os.getpid(), signal.SIGKILL)


@cache
def _keeper() -> int:
    """The keeper's input. No other process may hold it open: programs do not inherit it, and forks close it."""
    told, tells = os.pipe()
    subprocess.Popen(
        # Without its own folder on the path, whose modules have names of the standard library.
        [sys.executable, "-I", "-S", __file__],
        stdin=told,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    os.close(told)
    os.register_at_fork(after_in_child=lambda: os.close(tells))
    return tells


def _keep() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, int] = {}
    rest = b""
    while True:
        has_input, _, _ = select.select([0], [], [], LOOK_EVERY_S)
        # A group that has ended is forgotten, so that its number may become a stranger's.
        groups = {group: number for group, number in groups.items() if _lives(group)}
        if not has_input:
            continue
        told = os.read(0, 4096)
        if not told:
            break
        *lines, rest = (rest + told).split(b"\n")
        for line in lines:
            group, ended_by = map(int, line.split())
            groups[group] = ended_by
    _end(groups)


def _end(groups: dict[int, int]) -> None:
    for group, number in groups.items():
        _send(group, number)
        # A process that is stopped takes no other signal.
        _send(group, signal.SIGCONT)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(map(_lives, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        _send(group, signal.SIGKILL)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _send(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _run(command: Sequence[str]) -> int:
    """Run `command` in the foreground; its exit code."""
    process = start(command)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: _send(process.pid, signal.SIGTERM))
    follow_make()
    exit_code = process.wait()
    return exit_code if exit_code >= 0 else 128 - exit_code


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(_run(sys.argv[1:]))
    _keep()
