"""SIGTERM and SIGINT as a flag that loops look at; a second signal ends the process at once."""

import signal
import threading
from types import FrameType


class Shutdown:
    """Installed by a command before its loop starts."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._requested.set()

    def requested(self) -> bool:
        return self._requested.is_set()

    def wait(self, seconds: float) -> bool:
        """Pause, but no longer than until a signal arrives."""
        return self._requested.wait(seconds)
