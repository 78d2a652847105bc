"""SIGTERM and SIGINT as a flag that loops look at. A process that does not come to look is ended in time anyway."""

import logging
import os
import select
import signal
import threading
from types import FrameType

GRACE = 8
"""Seconds for finishing what is in hand; supervisors allow ten."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


def end_at_once_until_ready() -> None:
    """Make a signal end the process with 0, for a command that has begun nothing yet. `Shutdown` takes over from it."""
    for number in SIGNALS:
        signal.signal(number, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Python writes the number to the wakeup pipe for signals that have a handler, and for no others."""


class Shutdown:
    """Installed by a command before its loop starts. A second signal ends the process at once.

    Whatever is not finished `GRACE` seconds after the signal (a database that does not answer, say) is given up: what
    was not committed is done again by the next process.
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        # Python runs signal handlers between two steps of the main thread, which may be waiting inside a library. The
        # number on this pipe arrives all the same.
        self._signals, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written)
        for number in SIGNALS:
            signal.signal(number, _ignore)
        threading.Thread(target=self._watch, name="shutdown", daemon=True).start()

    def _watch(self) -> None:
        os.read(self._signals, 1)
        self._requested.set()
        second, _, _ = select.select([self._signals], [], [], GRACE)
        if second:
            os._exit(128 + os.read(self._signals, 1)[0])
        logger.warning("Not finished %d s after the signal: what was not committed will be done again", GRACE)
        os._exit(0)

    def requested(self) -> bool:
        return self._requested.is_set()

    def wait(self, seconds: float) -> bool:
        """Pause, but no longer than until a signal arrives."""
        return self._requested.wait(seconds)
