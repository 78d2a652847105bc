"""Ends servers when the program that started them ends in any way, including `kill -9`.

The program holds the write end of a pipe, and a small keeper process reads from it. Each server registers with the
keeper before it starts. When the program ends, the pipe closes, and the keeper ends every registered process group. A
program that `make` started also ends when `make` does.

This module uses the standard library only, because `make kafka` runs without `.venv`.
"""

import os
import pwd
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
from typing import Any, NoReturn

STOP_TIMEOUT_S = 10
"""Seconds that the servers have to end after the stop signal. Then the keeper process sends SIGKILL to them."""
POLL_INTERVAL_S = 0.5
KILL_AFTER_S = 15
"""A program whose `make` has ended sends itself SIGTERM, and this many seconds later SIGKILL."""
REGISTER = "--register"
"""First argument of a process that registers with the keeper process and then becomes a server."""


def start(
    command: Sequence[str | Path],
    *,
    stop_signal: signal.Signals = signal.SIGTERM,
    run_as: str = "",
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start `command` as the leader of a new session and a new process group.

    The keeper process ends this group when this program ends. If the command cannot be executed, no error is raised,
    and the process ends with exit code 1.

    Args:
        stop_signal: the signal for a clean shutdown of the command.
        run_as: name of the system user to run as, with only that user's group. Requires root.
        options: arguments for subprocess.Popen.
    """
    keeper = _keeper()
    registration = [sys.executable, "-I", "-S", __file__, REGISTER, str(keeper), str(stop_signal.value), run_as]
    return subprocess.Popen([*registration, *command], start_new_session=True, pass_fds=[keeper], **options)


def follow_make() -> None:
    """Start a thread that ends this program when the `make` that started the program has ended.

    The thread sends SIGTERM, and after `KILL_AFTER_S` SIGKILL. Without `make`, no thread starts.
    """
    if "MAKELEVEL" in os.environ:
        threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def interrupt_on_signals() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that the program cleans up. Ignored signals stay ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _follow(make: int) -> None:
    while os.getppid() == make:
        time.sleep(POLL_INTERVAL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(KILL_AFTER_S)
    os.kill(os.getpid(), signal.SIGKILL)


@cache
def _keeper() -> int:
    """Start the keeper process once, and return the write end of the pipe from which it reads.

    The keeper ends the registered servers when the pipe closes. So servers and forks close their copies of this end.
    """
    read_end, write_end = os.pipe()
    subprocess.Popen(
        # -I keeps this folder off the path, because modules in it have names of the standard library.
        [sys.executable, "-I", "-S", __file__],
        stdin=read_end,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    os.close(read_end)
    os.register_at_fork(after_in_child=lambda: os.close(write_end))
    return write_end


def _register(keeper: int, stop_signal: str, run_as: str, *command: str) -> NoReturn:
    """Register this process with the keeper process, and then become `command`.

    `keeper` is the file descriptor of the write end of the keeper's pipe. When no process has the write end open, the
    keeper ends the registered processes. This process closes the write end only after it has registered itself, because
    its parent may be killed before.

    `stop_signal` is the number of the signal by which the keeper ends this process. `run_as` is the name of the system
    user to run as; with an empty text, the user stays the same.
    """
    os.write(keeper, f"{os.getpid()} {stop_signal}\n".encode())
    os.close(keeper)
    if run_as:
        user = pwd.getpwnam(run_as)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    # Python ignores these signals, and `command` would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"Cannot start {command[0]}: {error.strerror}")


def _keep() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, int] = {}
    rest = b""
    while True:
        has_input, _, _ = select.select([0], [], [], POLL_INTERVAL_S)
        # Ended groups are dropped, because another program may get their number.
        groups = {group: number for group, number in groups.items() if _is_alive(group)}
        if not has_input:
            continue
        received = os.read(0, 4096)
        if not received:
            break
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            group, stop_signal = map(int, line.split())
            groups[group] = stop_signal
    _end(groups)


def _end(groups: dict[int, int]) -> None:
    for group, number in groups.items():
        _send(group, number)
        # A stopped process handles SIGTERM only after SIGCONT.
        _send(group, signal.SIGCONT)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(map(_is_alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        _send(group, signal.SIGKILL)


def _is_alive(group: int) -> bool:
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
    """Run `command`, pass on signals as SIGTERM, and return its exit code: 128 + N if signal N ended it."""
    process = start(command)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: _send(process.pid, signal.SIGTERM))
    follow_make()
    exit_code = process.wait()
    return exit_code if exit_code >= 0 else 128 - exit_code


if __name__ == "__main__":
    if sys.argv[1:2] == [REGISTER]:
        _register(int(sys.argv[2]), *sys.argv[3:])
    if sys.argv[1:]:
        sys.exit(_run(sys.argv[1:]))
    _keep()
