"""No server outlives the program that started it, whichever way that program ends; kill -9 included.

The program holds one end of a pipe, and a small keeper process reads the other. Each server names itself to the keeper
before it begins. When the program is gone, the pipe ends, and the keeper ends every process group that it knows of. A
program that `make` has started also follows `make`: it ends in order when `make` is gone.

The keeper needs the standard library alone, because `make kafka` runs without `.venv`.
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
"""What every process has to finish, before it is killed."""
LOOK_EVERY_S = 0.5
FORCE_AFTER_S = 15
"""After its `make` is gone, a program has so long to end in order."""
INTRODUCE = "--introduce"
"""First argument of a process that names itself to the keeper and then becomes a server."""


def start(
    command: Sequence[str | Path],
    *,
    ended_by: signal.Signals = signal.SIGTERM,
    run_as: str = "",
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start `command` as the leader of a session of its own, which ends when this program is gone.

    Args:
        ended_by: the signal that ends it in order.
        run_as: name of the system user that it runs as, in that user's group alone. Only root may name one.
        options: those of subprocess.Popen.
    """
    keeper = _keeper()
    introduction = [sys.executable, "-I", "-S", __file__, INTRODUCE, str(keeper), str(ended_by.value), run_as]
    return subprocess.Popen([*introduction, *command], start_new_session=True, pass_fds=[keeper], **options)


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
    """The keeper's input. No other process may hold it open: servers close it, and forks do."""
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


def _introduce(keeper: int, ended_by: str, run_as: str, *command: str) -> NoReturn:
    """Name this process to the keeper, and become `command`.

    The program that starts it may be killed at any moment. Until this process is named, it holds the keeper's input
    open.
    """
    os.write(keeper, f"{os.getpid()} {ended_by}\n".encode())
    os.close(keeper)
    if run_as:
        user = pwd.getpwnam(run_as)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    # Python ignores these, and `command` would inherit that.
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
    if sys.argv[1:2] == [INTRODUCE]:
        _introduce(int(sys.argv[2]), *sys.argv[3:])
    if sys.argv[1:]:
        sys.exit(_run(sys.argv[1:]))
    _keep()
