"""Limit the total time that another program can take for an answer, even if it sends the answer byte by byte."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def cut_after(seconds: float, connected: socket.socket | None) -> Iterator[threading.Event]:
    """Shut down the socket if the block takes more than `seconds`. Yield an event that is set in this case.

    Without a socket (`connected` is None), only the event is set. The timeout of a socket starts again at each received
    byte, so it does not limit the time of a whole answer.
    """
    late = threading.Event()

    def cut() -> None:
        late.set()
        # The other program may have ended the connection.
        with suppress(OSError):
            if connected is not None:
                # An SSLSocket's own method would turn it into a plain socket, and the block would read encrypted bytes.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        # A cut that has begun must not strike the next use of the socket.
        timer.join()
