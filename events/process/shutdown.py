"""Set a flag on SIGTERM or SIGINT. The loop of a command checks the flag and ends.

If the loop does not end in time, a thread ends the process.
"""

import logging
import os
import select
import signal
import threading
from types import FrameType

GRACE_S = 8
"""Longest time from the signal to the end of the process, in seconds. Supervisors allow ten."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


def end_at_once_until_ready() -> None:
    """Make SIGTERM and SIGINT end the process at once, with exit code 0.

    This holds until the command has work to finish and creates `Shutdown`.
    """
    for number in SIGNALS:
        signal.signal(number, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. Python writes a signal to the wakeup pipe only if the signal has a handler."""


class Shutdown:
    """The shutdown flag of a command, which creates it before its loop. A second signal ends the process at once.

    `GRACE_S` seconds after the first signal, the process ends even if its work is not finished, for example because the
    database does not answer. The next process repeats the uncommitted work.
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        # Python runs signal handlers only between two steps of the main thread, which may wait inside a library. The
        # wakeup pipe gets the signal's number at once.
        self._signals, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written)
        for number in SIGNALS:
            signal.signal(number, _ignore)
        threading.Thread(target=self._watch, name="shutdown", daemon=True).start()

    def _watch(self) -> None:
        os.read(self._signals, 1)
        self._requested.set()
        second, _, _ = select.select([self._signals], [], [], GRACE_S)
        if second:
            os._exit(128 + os.read(self._signals, 1)[0])
        logger.warning("Not finished %d s after the signal: the next process repeats uncommitted work", GRACE_S)
        os._exit(0)

    def request(self) -> None:
        """Set the shutdown flag without a signal. The time limit `GRACE_S` begins only at a signal."""
        self._requested.set()

    def requested(self) -> bool:
        return self._requested.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for `seconds` or until the flag is set. Return whether it is set."""
        return self._requested.wait(seconds)
