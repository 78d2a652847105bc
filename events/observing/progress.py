"""How a consumer gets on, for somebody who sits in front of it."""

import time
from typing import TextIO

from django.conf import settings
from django.template.defaultfilters import pluralize
from prometheus_client import REGISTRY

from events.kafka.lag import group_lag
from events.observing.readings import Source

REWRITTEN = 1.0
"""Seconds between two versions of the line."""
CLEAR_LINE = "\x1b[K"


class ProgressLine:
    """Events so far, events a second and the group's lag, in one line of a terminal that is rewritten."""

    def __init__(self, *, terminal: TextIO, group: str) -> None:
        self._terminal = terminal
        self._lag = Source(lambda: group_lag(topic=settings.ORDER_EVENTS_TOPIC, group=group))
        self._begun_with = self._events = _consumed()
        self._written = time.monotonic()
        self._lag_text = "unknown"

    def rewrite(self) -> None:
        """To be called as often as one likes; it waits for nobody."""
        since = time.monotonic() - self._written
        if since < REWRITTEN:
            return
        events = _consumed()
        rate = (events - self._events) / since
        self._events, self._written = events, time.monotonic()
        total = events - self._begun_with
        self._terminal.write(
            # Back at its beginning, so that a line of the log takes its place.
            f"{CLEAR_LINE}{total:,.0f} event{pluralize(total)}, {rate:,.0f}/s, lag {self._known_lag()}\r"
        )
        self._terminal.flush()

    def _known_lag(self) -> str:
        """As it was last read; the next reading is under way every other time."""
        partitions = self._lag.attempt().result
        if partitions is not None:
            self._lag_text = f"{sum(one.lag or 0 for one in partitions):,}"
        return self._lag_text

    def end(self) -> None:
        self._terminal.write("\n")


def _consumed() -> float:
    return REGISTRY.get_sample_value("consumer_batch_size_sum") or 0
