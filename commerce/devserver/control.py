"""The control channel of `make run`, on which its web processes stop and start the consumer and the broker.

The channel is a Unix socket. A connection carries one request, `{"key", "target", "on"}`, and one response: the state
of both targets, or `{"error"}`. Each is one line of JSON. `key` is a secret that `make run` gives its web processes. A
request without a target only returns the state. The folder of the socket is closed to other users.
"""

import json
import secrets
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

TIMEOUT_S = 0.5
"""Timeout in seconds of one read or write on the control channel, for the client and for the server."""
SWITCH_TIMEOUT_S = 10
"""Seconds that the client waits for the answer to a request that stops or starts the consumer or the broker.

It is longer than `TIMEOUT_S`, because a switch of the broker waits for the broker's own thread.
"""
LINE_LIMIT_BYTES = 4_096
"""Largest size of a request or a response on the control channel, in bytes."""
CONSUMER, BROKER = "consumer", "broker"


class Broker(Protocol):
    """The methods of the embedded broker that the control channel calls."""

    def go_down(self) -> None: ...

    def come_back(self) -> None: ...


class Processes(Protocol):
    """The methods of the supervisor that the control channel calls."""

    def switch(self, name: str, *, on: bool) -> None: ...

    def state(self, name: str) -> str: ...


class ControlUnavailable(Exception):
    """`make run` does not answer on its control channel: it is ending, or it hangs."""


class SwitchFailed(Exception):
    """The consumer or the broker could not be switched. Its state has not changed."""


class Control:
    """The server of the control channel, by which web processes switch the consumer and the broker on and off.

    It runs in a thread of `make run`.
    """

    def __init__(self, *, processes: Processes, broker: Broker) -> None:
        self._processes = processes
        self._broker = broker
        self._broker_is_on = True
        self._key = secrets.token_urlsafe(32)
        self._folder = Path(tempfile.mkdtemp(prefix="commerce-"))
        # The server handles one request at a time, so that no two threads switch the supervisor or the broker at once.
        self._server = socketserver.UnixStreamServer(str(self._folder / "control"), self._handler())
        threading.Thread(target=self._server.serve_forever, name="control", daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables by which the web processes find the control channel."""
        return {"DEVSERVER_SOCKET": str(self._folder / "control"), "DEVSERVER_KEY": self._key}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        answer = self._answer

        class Handler(socketserver.StreamRequestHandler):
            timeout = TIMEOUT_S

            def handle(self) -> None:
                try:
                    request = json.loads(self.rfile.readline(LINE_LIMIT_BYTES))
                    self.wfile.write(json.dumps(answer(request)).encode() + b"\n")
                except (OSError, ValueError):
                    # A web process was killed during its request. Its client will ask again.
                    return

        return Handler

    def _answer(self, request: Any) -> dict[str, str]:
        """Switch the target that the request names, if any.

        Return the state of the consumer and the broker, or only an `error` if the target was not switched. Raises
        ValueError if the request is not a JSON object with the secret key of the channel.
        """
        if not isinstance(request, Mapping) or not secrets.compare_digest(
            str(request.get("key")).encode(), self._key.encode()
        ):
            raise ValueError("the request lacks the key")
        try:
            match request.get("target"), request.get("on"):
                case "consumer", bool(on):
                    self._processes.switch(CONSUMER, on=on)
                case "broker", bool(on):
                    self._switch_broker(on=on)
        except (OSError, RuntimeError) as error:
            return {"error": f"The {request['target']} was not switched: {error}"}
        return {CONSUMER: self._processes.state(CONSUMER), BROKER: "on" if self._broker_is_on else "off"}

    def _switch_broker(self, *, on: bool) -> None:
        if on != self._broker_is_on:
            (self._broker.come_back if on else self._broker.go_down)()
            self._broker_is_on = on


def ask(socket_path: str, key: str, *, target: str | None = None, on: bool | None = None) -> dict[str, str]:
    """Switch `target` (`consumer` or `broker`) on or off, if it is given. Return the state of both.

    `socket_path` and `key` are the values of `DEVSERVER_SOCKET` and `DEVSERVER_KEY`, which `make run` sets for its web
    processes. The state of `consumer` is `on`, `off`, `starting` or `stopping`. That of `broker` is `on` or `off`.

    Raises:
        ControlUnavailable: `make run` does not answer. It may still have switched the target, or do so later.
        SwitchFailed: the target could not be switched.
    """
    request = json.dumps({"key": key, "target": target, "on": on}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(socket_path)
            connection.sendall(request)
            if target:
                connection.settimeout(SWITCH_TIMEOUT_S)
            with connection.makefile("rb") as answer:
                state: dict[str, str] = json.loads(answer.readline(LINE_LIMIT_BYTES))
    except (OSError, ValueError) as error:
        raise ControlUnavailable(f"make run does not answer on its control channel: {error}") from error
    if "error" in state:
        raise SwitchFailed(state["error"])
    return state
