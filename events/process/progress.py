"""The progress of a command that walks through large tables, on one line of a terminal."""

import time
from typing import TextIO

from events.database import Report

REDRAW_INTERVAL_S = 0.1
BAR_CHARS = 20
CLEAR_LINE = "\r\x1b[K"


class ProgressLine:
    """Shows how far a command has walked through its tables, by redrawing one line of a terminal.

    An example is `orders [########............]  42%  3.1 s`. The seconds count from the creation of this object. If
    the stream is not a terminal, nothing is shown.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_shown = stream.isatty()
        self._started_at = time.monotonic()
        self._drawn_at = 0.0

    def of(self, name: str) -> Report:
        """Return a function that draws the line, given the part of the work that is done, from 0.0 to 1.0.

        `name` is the label of the line, such as `orders`.
        """

        def report(done: float) -> None:
            if self._is_shown and (done >= 1 or time.monotonic() >= self._drawn_at + REDRAW_INTERVAL_S):
                self._drawn_at = time.monotonic()
                took_s = self._drawn_at - self._started_at
                bar = "#" * int(done * BAR_CHARS)
                self._stream.write(f"{CLEAR_LINE}{name} [{bar:.<{BAR_CHARS}}] {done:4.0%}  {took_s:.1f} s")
                self._stream.flush()

        return report

    def clear(self) -> None:
        """Erase the line, so that another one can be written."""
        if self._is_shown:
            self._stream.write(CLEAR_LINE)
            self._stream.flush()
