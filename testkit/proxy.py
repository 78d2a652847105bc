"""A TCP proxy between all clients and Kafka. Tests switch its faults on and off during the traffic."""

import asyncio
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeAlias

HOST = "127.0.0.1"
PRODUCE, FETCH, OFFSET_COMMIT = 0, 1, 8
"""Kinds of requests: the `api_key` of https://kafka.apache.org/protocol#protocol_api_keys."""
CONTROL_TIMEOUT_S = 10
"""Seconds that switching a fault on or off may take."""

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


class Proxy:
    """A proxy in front of Kafka that simulates faults of the network and of Kafka; `heal` ends every fault.

    It forwards requests and answers one by one, in a separate thread. The broker advertises the proxy's address, so no
    client bypasses it.
    """

    def __init__(self, *, broker_port: int) -> None:
        self._broker_port = broker_port
        # This socket is bound and never listens: it reserves the port while connections are refused.
        self._reservation = bound_socket(0)
        self.port: int = self._reservation.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._is_refusing = True
        self._connections: dict[asyncio.Task[Any], list[Writer]] = {}
        self._passing = asyncio.Event()
        self._delay = 0.0
        self._to_drop: Counter[int] = Counter()
        self.dropped = 0
        """Number of answers dropped since the last call of `drop_answers`."""
        self._to_corrupt = b""
        self.corrupted = 0
        """Number of answers corrupted so far."""

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        self._thread.start()
        self.heal()

    def stop(self) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONTROL_TIMEOUT_S)
        self._loop.close()
        self._reservation.close()

    def heal(self) -> None:
        """End every fault. Forward also the requests and answers that `swallow` has held back."""
        self._do(self._heal())

    def refuse(self) -> None:
        """Refuse new connections, and close the open ones."""
        self._do(self._refuse())

    def swallow(self) -> None:
        """Hold back all requests and answers, on open and on new connections. New connections are still accepted.

        `heal` forwards what was held back, as a network does after a partition. The sender may have given up by then.
        """
        self._do(self._swallow())

    def reset(self) -> None:
        """Break the open connections with RST. New connections work."""
        self._do(self._close_connections(reset=True))

    def delay(self, seconds: float) -> None:
        """Delay every request and every answer by `seconds`."""
        self._delay = seconds

    def drop_answers(self, count: int = 1, *, to: int = PRODUCE) -> None:
        """Forward the next `count` requests of the kind `to`, but close the connection instead of answering.

        The kind is an `api_key` of Kafka's protocol, such as `PRODUCE`.
        """
        self.dropped = 0
        self._to_drop[to] = count

    def corrupt_answer(self, *, containing: bytes) -> None:
        """Flip a bit of the bytes `containing` in the next fetch response that has them. Later ones are unchanged."""
        self._to_corrupt = containing

    def _do(self, switch: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(switch, self._loop).result(CONTROL_TIMEOUT_S)

    async def _heal(self) -> None:
        self._delay = 0.0
        self._to_drop.clear()
        self._to_corrupt = b""
        self._passing.set()
        await self._listen()

    async def _swallow(self) -> None:
        self._passing.clear()
        await self._listen()

    async def _listen(self) -> None:
        self._is_refusing = False
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, sock=bound_socket(self.port))

    async def _refuse(self) -> None:
        self._is_refusing = True
        if self._listener is not None:
            # From Python 3.12 on, `wait_closed` would wait for the connections that this method ends.
            self._listener.close()
            self._listener = None
        await self._close_connections()

    async def _close_connections(self, *, reset: bool = False) -> None:
        connections = dict(self._connections)
        for task, writers in connections.items():
            if reset:
                for writer in writers:
                    _reset(writer)
            task.cancel()
        if connections:
            await asyncio.wait(connections)

    async def _serve(self, client_in: Reader, client_out: Writer) -> None:
        """Serve one client's connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        writers = self._connections[task] = [client_out]
        try:
            if self._is_refusing:
                return  # The connection was accepted just before.
            await self._passing.wait()
            broker_in, broker_out = await asyncio.open_connection(HOST, self._broker_port)
            writers.append(broker_out)
            await self._connect(client_in, client_out, broker_in, broker_out)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # Both sides are closed below, whichever of them ended the connection.
        finally:
            for writer in writers:
                writer.close()
            for writer in writers:
                with suppress(OSError):
                    await writer.wait_closed()
            del self._connections[task]

    async def _connect(self, client_in: Reader, client_out: Writer, broker_in: Reader, broker_out: Writer) -> None:
        # Kafka answers the requests of a connection in order.
        waiting: deque[int] = deque()
        directions = {
            asyncio.create_task(self._pass_requests(client_in, broker_out, waiting)),
            asyncio.create_task(self._pass_answers(broker_in, client_out, waiting)),
        }
        try:
            ended, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for direction in ended:
                direction.result()
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _pass_requests(self, client: Reader, broker: Writer, waiting: deque[int]) -> None:
        while True:
            request = await _read_message(client)
            await self._hold_up()
            waiting.append(int.from_bytes(request[4:6]))
            broker.write(request)
            await broker.drain()

    async def _pass_answers(self, broker: Reader, client: Writer, waiting: deque[int]) -> None:
        while True:
            answer = await _read_message(broker)
            await self._hold_up()
            kind = waiting.popleft()
            if self._to_drop[kind] > 0:
                self._to_drop[kind] -= 1
                self.dropped += 1
                return
            client.write(self._corrupted(answer) if kind == FETCH else answer)
            await client.drain()

    def _corrupted(self, answer: bytes) -> bytes:
        position = answer.find(self._to_corrupt) if self._to_corrupt else -1
        if position < 0:
            return answer
        self._to_corrupt = b""
        self.corrupted += 1
        return answer[:position] + bytes([answer[position] ^ 1]) + answer[position + 1 :]

    async def _hold_up(self) -> None:
        await self._passing.wait()
        if self._delay:
            await asyncio.sleep(self._delay)


async def _read_message(reader: Reader) -> bytes:
    """Read a request or an answer; both begin with their size as an int32."""
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size))


def bound_socket(port: int) -> socket.socket:
    """Return a socket that is bound to `port` and does not listen. Port 0 chooses a free one.

    It reserves the port while connections are refused. A server can listen on another such socket at the same port.
    """
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((HOST, port))
    return bound


def _reset(writer: Writer) -> None:
    """Close the connection at once with RST, by a linger time of 0 (SO_LINGER in socket(7))."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
