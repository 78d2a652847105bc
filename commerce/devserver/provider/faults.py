"""Faults that the provider makes on purpose: for a payment's token, on request (`POST /faults`), or at random."""

import random
import threading
from dataclasses import dataclass, field
from typing import Any

FAULTS = (
    *("error", "unavailable", "close", "silence", "forget"),
    *("error-after", "close-after", "silence-after", "garbage-after", "slow-after"),
)
"""Names of the faults, which say how the server answers a request.

The answer is 500 for `error`, 503 for `unavailable`, 404 for `forget`, invalid JSON for `garbage`, and late for `slow`.
For `close` the server closes the connection without an answer, and for `silence` it does so after a while. If the name
ends in `-after`, the server first carries out the request. Otherwise it does not.
"""
RANDOM_FAULTS = tuple(fault for fault in FAULTS if fault != "forget")


@dataclass
class Arranged:
    """A fault for the next `times` requests whose method and path begin with `of`, such as `POST /payments`."""

    fault: str
    of: str
    times: int


@dataclass
class Faults:
    rate: float
    """Share of the requests that get a random fault."""
    _arranged: list[Arranged] = field(default_factory=list)
    _timed_out: set[str] = field(default_factory=set)
    """Keys of payments with the token `tok_timeout_then_charged` whose first request has got its fault."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrange(self, arranged: Arranged) -> None:
        with self._lock:
            self._arranged.append(arranged)

    def of(self, request: str, *, body: Any, key: str) -> str:
        """Return the name of the fault for a request; an empty text for none. The caller makes this fault.

        `request` is the method and path, such as `POST /payments`. A fault that `arrange` has stored comes first, and
        is used up. Otherwise the payment token in `body` or chance may cause a fault. `key` is the `Idempotency-Key`:
        the token `tok_timeout_then_charged` causes one fault for each key.
        """
        token = body.get("token") if isinstance(body, dict) else None
        with self._lock:
            for one in self._arranged:
                if one.times > 0 and request.startswith(one.of):
                    one.times -= 1
                    return one.fault
            if token == "tok_timeout_then_charged" and key not in self._timed_out:  # noqa: S105 - it is no secret
                self._timed_out.add(key)
                return "silence-after"
        if token == "tok_slow":  # noqa: S105
            return "slow-after"
        return random.choice(RANDOM_FAULTS) if random.random() < self.rate else ""  # noqa: S311
