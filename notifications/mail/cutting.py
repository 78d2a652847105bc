"""Limit the total time that the mail server can take, even if it sends its answer byte by byte."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def cut_after(seconds: float, connected: socket.socket | None) -> Iterator[None]:
    """Shut down the socket if the block takes more than `seconds`. Without a socket, do nothing.

    The timeout of a socket starts again at each received byte, so it does not limit the time of a whole answer.
    """

    def cut() -> None:
        # The mail server may have ended the connection.
        with suppress(OSError):
            if connected is not None:
                # An SSLSocket's own method would turn it into a plain socket, and the block would read encrypted bytes.
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        # A cut that has begun must not strike the next use of the socket.
        timer.join()
