"""Limit the time that another program can take for an answer, however it divides the answer."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def cut_after(seconds: float, connected: Callable[[], socket.socket | None]) -> Iterator[threading.Event]:
    """Shut down the socket that `connected` returns if the block takes more than `seconds`. Yields whether it did.

    The timeout of a socket starts again at each received byte, so it does not limit the time of a whole answer.
    """
    late = threading.Event()

    def cut() -> None:
        late.set()
        # The other program may have ended the connection.
        if open_socket := connected():
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
