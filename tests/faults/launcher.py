"""Start a program with one of its functions sabotaged.

    python -m tests.faults.launcher --kill-before events.outbox.publisher:deliver -- django relay_outbox

The words after `--` are the arguments of `python -m`. Name the function in the module that calls it: if
events.outbox.publisher imports `deliver`, the target is `events.outbox.publisher:deliver`.
"""

import argparse
import functools
import multiprocessing
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import django

ACTIONS = ("kill", "freeze", "hang", "fail")
MOMENTS = ("before", "after")


class Sabotage(Exception):
    """The error that a sabotaged function raises."""


def sabotage(what: str, target: str, *, on_call: int = 1, always: bool = False, containing: str = "") -> list[str]:
    """Return the command line of the launcher, for `ProductProcess(launcher=...)`.

    Args:
        what: `kill-before`, `kill-after` (SIGKILL), `freeze-before`, `freeze-after` (SIGSTOP), `hang-before`,
            `hang-after` (the call never returns), `fail-before` or `fail-after` (Sabotage is raised). The action
            hits the process that makes the call.
        target: `module:qualified.name`.
        on_call: which call to sabotage, from 1. The process and its forks count their calls together, so the
            worker that replaces a killed one is spared.
        always: sabotage every later call as well.
        containing: count only calls with this text in the repr of their arguments.
    """
    options = [f"--{what}", target, "--on-call", str(on_call), "--containing", containing]
    return ["tests.faults.launcher", *options, *(["--always"] if always else []), "--"]


def main() -> None:
    parser = argparse.ArgumentParser()
    what = parser.add_mutually_exclusive_group(required=True)
    for action in ACTIONS:
        for moment in MOMENTS:
            what.add_argument(f"--{action}-{moment}", metavar="MODULE:NAME")
    parser.add_argument("--on-call", type=int, default=1)
    parser.add_argument("--always", action="store_true")
    parser.add_argument("--containing", default="")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()
    # The target's module may import models.
    django.setup()
    for action in ACTIONS:
        for moment in MOMENTS:
            if target := getattr(options, f"{action}_{moment}"):
                _wrap(target, action=action, moment=moment, options=options)
    sys.argv = options.program
    runpy.run_module(options.program[0], run_name="__main__", alter_sys=True)


def _wrap(target: str, *, action: str, moment: str, options: argparse.Namespace) -> None:
    module, _, path = target.partition(":")
    owner_path, _, name = path.rpartition(".")
    owner: Any = _import(module)
    if owner_path:
        owner = attrgetter(owner_path)(owner)
    function: Callable[..., Any] = getattr(owner, name)
    calls = multiprocessing.get_context("fork").Value("i", 0)

    def strikes(args: object) -> bool:
        if options.containing not in repr(args):
            return False
        with calls:
            calls.value += 1
            return calls.value == options.on_call or (options.always and calls.value > options.on_call)

    @functools.wraps(function)
    def sabotaged(*args: Any, **kwargs: Any) -> Any:
        struck = strikes((args, kwargs))
        if struck and moment == "before":
            _act(action, target)
        result = function(*args, **kwargs)
        if struck and moment == "after":
            _act(action, target)
        return result

    setattr(owner, name, sabotaged)


def _import(module: str) -> Any:
    __import__(module)
    return sys.modules[module]


def _act(action: str, target: str) -> None:
    if action == "fail":
        raise Sabotage(target)
    while action == "hang":
        time.sleep(1)
    # Signal this thread, so that it goes no further. A signal to the process may stop another thread first.
    signal.pthread_kill(threading.get_ident(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)


if __name__ == "__main__":
    main()
