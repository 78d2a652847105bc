"""The HTTP server of the provider."""

import json
import random
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from commerce.devserver.provider.book import SERVICES, VOIDED, Book, Conflict, Entry, is_valid
from commerce.devserver.provider.faults import FAULTS, Arranged, Faults

MAX_BODY_BYTES = 256 * 1024
CONNECTION_TIMEOUT_S = 120


@dataclass
class Options:
    port: int = 8090
    host: str = "127.0.0.1"
    book: str = "var/provider.sqlite3"
    latency_s: float = 0.05
    """Mean time before an answer, in seconds. Each answer takes 0.5 to 1.5 times as long."""
    fault_rate: float = 0.0
    """Share of the requests that get a random fault."""
    slow_s: float = 2.0
    """Seconds that a slow answer takes in addition."""
    silence_s: float = 60.0
    """Seconds that the server waits before it closes the connection without an answer, for the fault `silence`."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> "Options":
        """Return the options in the variables `PROVIDER_...`, which `.env.example` documents.

        Raises ValueError if a value that must be a number is not one.
        """
        given = {name: variables.get(f"PROVIDER_{name}", "") for name in ("PORT", "HOST", "BOOK")}
        seconds = {
            name: float(variables[variable]) / per
            for name, variable, per in (
                ("latency_s", "PROVIDER_LATENCY_MS", 1000),
                ("fault_rate", "PROVIDER_FAULT_RATE", 1),
                ("slow_s", "PROVIDER_SLOW_SECONDS", 1),
                ("silence_s", "PROVIDER_SILENCE_SECONDS", 1),
            )
            if variables.get(variable)
        }
        return cls(
            port=int(given["PORT"] or cls.port),
            host=given["HOST"] or cls.host,
            book=given["BOOK"] or cls.book,
            **seconds,
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = CONNECTION_TIMEOUT_S
    # Each answer is one packet, which is sent at once.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: "Server"

    def do_GET(self) -> None:
        if self.path == "/book":
            self._answer(200, {service: self.server.book.read(service) for service in SERVICES})
        else:
            self._serve("GET", None)

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = MAX_BODY_BYTES + 1
        if not 0 <= length <= MAX_BODY_BYTES:
            self.close_connection = True
            self._answer(413, {"reason": "The body is too large"})
            return
        try:
            # Amounts stay exact as text.
            body = json.loads(self.rfile.read(length) or b"null", parse_float=str)
        except (ValueError, RecursionError):
            self._answer(400, {"reason": "The body is no JSON"})
            return
        if self.path == "/faults":
            self._arrange(body)
        else:
            self._serve("POST", body)

    def _arrange(self, body: Any) -> None:
        if not isinstance(body, dict) or body.get("fault") not in FAULTS:
            self._answer(400, {"reason": f"Give a fault: {', '.join(FAULTS)}"})
            return
        of, times = body.get("of", ""), body.get("times", 1)
        if not isinstance(of, str) or type(times) is not int:
            self._answer(400, {"reason": "Give `of` as a text, and `times` as a whole number"})
            return
        self.server.faults.arrange(Arranged(body["fault"], of, times))
        self._answer(200, {})

    def _serve(self, method: str, body: Any) -> None:
        options = self.server.options
        time.sleep(options.latency_s * random.uniform(0.5, 1.5))  # noqa: S311
        key = self.headers.get("Idempotency-Key", "")
        fault = self.server.faults.of(f"{method} {self.path}", body=body, key=key)
        what, _, after = fault.partition("-")
        status, answer = self._do(method, body) if after or not fault else (0, {})
        match what:
            case "error":
                self._answer(500, {"reason": "Something went wrong"})
            case "unavailable":
                self._answer(503, {"reason": "Come back later"})
            case "forget":
                self._answer(404, {"reason": "Unknown"})
            case "garbage":
                self._send(status, b'{"state": "char')
            case "close" | "silence":
                if what == "silence":
                    time.sleep(options.silence_s)
                self.close_connection = True
            case _:
                if what == "slow":
                    time.sleep(options.slow_s)
                self._answer(status, answer)

    def _do(self, method: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Carry out a request. Return the HTTP status and the JSON of the answer."""
        service, key, undo = (*self.path.strip("/").split("/"), "", "")[:3]
        if service not in SERVICES:
            return 404, {"reason": "Unknown path"}
        names, book = SERVICES[service], self.server.book
        if method == "GET":
            entry = book.find(service, key)
            return (200, answer_of(key, entry)) if entry else (404, {"reason": "Unknown key"})
        if undo == names.undo_path:
            entry = book.undo(service, key)
            return (200 if entry.state in (names.undone, VOIDED) else 409), answer_of(key, entry)
        key = self.headers.get("Idempotency-Key", "")
        if self.path != f"/{service}" or not re.fullmatch(r"[\w-]{1,100}", key, re.ASCII):
            return (400, {"reason": "Give an Idempotency-Key"}) if self.path == f"/{service}" else (404, {})
        if not is_valid(service, body):
            return 400, {"reason": "The body is not as documented"}
        try:
            entry, is_new = book.make(service, key, body)
        except Conflict:
            return 422, {"reason": "The Idempotency-Key was used with another body"}
        status = {names.made: 201 if is_new else 200, names.refused: 402, VOIDED: 409}.get(entry.state, 200)
        return status, answer_of(key, entry)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: object) -> None:
        """Log nothing, because the base class would write a line to stderr for each request."""


def answer_of(key: str, entry: Entry) -> dict[str, Any]:
    return {"id": key, "state": entry.state, **({"reason": entry.reason} if entry.reason else {})}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: Options) -> None:
        Path(options.book).parent.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.book = Book(options.book)
        self.faults = Faults(options.fault_rate)
        self._is_closed = False
        super().__init__((options.host, options.port), Handler)
        self.url = f"http://{options.host}:{self.server_port}"

    def server_close(self) -> None:
        super().server_close()
        self._is_closed = True
        self.book.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report no error for a client that has closed its connection, or that still asks after `server_close`."""
        if not (self._is_closed or isinstance(sys.exception(), OSError)):
            super().handle_error(request, client_address)
