"""HTTP load from plain sockets. The client must be cheap, because it shares the machine with the server."""

import json
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

ORDER = {"items": [{"productId": 1, "quantity": 2, "price": 100.00}]}


@dataclass
class Load:
    """The figures measured while clients sent requests."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """The duration of every request in seconds."""
    cpu_seconds: float = 0.0
    """CPU time, in seconds, of the programs that the caller has chosen, with all their processes."""

    def __add__(self, other: "Load") -> "Load":
        latencies = self.latencies + other.latencies
        return Load(self.seconds + other.seconds, latencies, self.cpu_seconds + other.cpu_seconds)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Average CPU time per request, in milliseconds, of the programs that `cpu_seconds` counts."""
        return self.cpu_seconds / len(self.latencies) * 1000

    @property
    def p50(self) -> float:
        """The median latency in milliseconds."""
        return median(self.latencies) * 1000

    @property
    def p99(self) -> float:
        """The 99th percentile of the latencies in milliseconds."""
        return quantiles(self.latencies, n=100)[-1] * 1000


def request(
    method: str, path: str, *, token: str, body: Any = None, headers: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """Return the bytes of an HTTP/1.1 request, to be sent repeatedly."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    if content:
        lines.append("Content-Type: application/json")
    lines += [f"Authorization: Bearer {token}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Connection:
    """A kept-alive connection to the site with at most one request in flight."""

    def __init__(self, site: str) -> None:
        address = urlsplit(site)
        self.socket = socket.create_connection((address.hostname, address.port or 80), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._sent_at = 0.0

    def ask(self, request: bytes) -> bytes:
        """Send the request, and return the answer's body."""
        self.send(request)
        while self.receive() is None:
            pass
        return self.body

    def send(self, request: bytes) -> None:
        self._received = b""
        self._sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> float | None:
        """Read the available bytes. Return the request's duration in seconds, or None if the answer is incomplete.

        Raises AssertionError if the status is not 2xx, or the server has closed the connection.
        """
        part = self.socket.recv(1 << 20)
        assert part, "the server closed the connection"
        self._received += part
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return None
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return None
        assert head.startswith(b"HTTP/1.1 2"), self._received.decode(errors="replace")
        self.head, self.body = head, body
        return time.perf_counter() - self._sent_at

    def header(self, name: str) -> str:
        """Return the last answer's value of the header `name`, in lower case, or an empty string if there is none."""
        return self.head.lower().partition(f"\r\n{name.lower()}: ".encode())[2].partition(b"\r\n")[0].decode()

    def close(self) -> None:
        self.socket.close()


def closed_loop(requests: Mapping[Connection, bytes], *, seconds: float) -> Load:
    """For `seconds`, let each connection send its request again as soon as it has an answer. Return the figures."""
    load = Load()
    with selectors.DefaultSelector() as selector:
        started_at = time.perf_counter()
        for connection, one in requests.items():
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(one)
        waiting = len(requests)
        while waiting:
            for key, _ in selector.select():
                took = key.data.receive()
                if took is None:
                    continue
                load.latencies.append(took)
                if time.perf_counter() - started_at < seconds:
                    key.data.send(requests[key.data])
                else:
                    waiting -= 1
        load.seconds = time.perf_counter() - started_at
    return load
