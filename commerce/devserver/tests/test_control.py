"""The control channel between the web processes and `make run`."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from commerce.devserver.control import Control, ControlUnavailable, SwitchFailed, ask
from commerce.devserver.embedded_kafka import EmbeddedKafka
from events.kafka.probe import probe_kafka
from testkit.waiting import wait_until


class Processes:
    """A stand-in for the supervisor. It only stores whether the consumer is on, so a switch takes no time."""

    def __init__(self) -> None:
        self.is_on = True

    def switch(self, name: str, *, on: bool) -> None:
        assert name == "consumer"
        self.is_on = on

    def state(self, name: str) -> str:
        return "on" if self.is_on else "off"


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    kafka = EmbeddedKafka()
    yield kafka
    kafka.stop()


@pytest.fixture
def control(kafka: EmbeddedKafka) -> Iterator[Control]:
    control = Control(processes=Processes(), broker=kafka)
    yield control
    control.close()


@pytest.fixture
def channel(control: Control) -> tuple[str, str]:
    return control.environment["DEVSERVER_SOCKET"], control.environment["DEVSERVER_KEY"]


def state(channel: tuple[str, str]) -> dict[str, str]:
    """Return the state of the consumer and of the broker. Like the page, ask again if the answer is late."""
    return wait_until(lambda: _answer(channel), timeout=10)


def _answer(channel: tuple[str, str]) -> dict[str, str]:
    try:
        return ask(*channel)
    except ControlUnavailable:
        return {}


def test_the_broker_goes_down_and_comes_back(
    channel: tuple[str, str], kafka: EmbeddedKafka, settings: Settings
) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = [kafka.bootstrap_servers]
    assert state(channel) == {"consumer": "on", "broker": "on"}
    assert probe_kafka() == "up"
    for _ in range(2):
        assert ask(*channel, target="broker", on=False) == {"consumer": "on", "broker": "off"}
        assert probe_kafka() == "down"
    assert state(channel) == {"consumer": "on", "broker": "off"}
    assert ask(*channel, target="broker", on=True) == {"consumer": "on", "broker": "on"}
    assert probe_kafka() == "up"


def test_the_consumer_is_switched_by_the_supervisor(channel: tuple[str, str]) -> None:
    assert ask(*channel, target="consumer", on=False) == {"consumer": "off", "broker": "on"}
    assert ask(*channel, target="consumer", on=True) == {"consumer": "on", "broker": "on"}


class Stubborn:
    """A stand-in for supervisor and broker. If `refuses` is set, each method that switches something raises it."""

    def __init__(self) -> None:
        self.refuses: Exception | None = None
        self.done: list[str] = []

    def _do(self, what: str) -> None:
        if self.refuses:
            raise self.refuses
        self.done.append(what)

    def go_down(self) -> None:
        self._do("down")

    def come_back(self) -> None:
        self._do("up")

    def switch(self, name: str, *, on: bool) -> None:
        self._do(f"{name} {on}")

    def state(self, name: str) -> str:
        return "on"


class Slow(Stubborn):
    """A stand-in for supervisor and broker that takes `switch_s` seconds for each switch, as on a busy machine."""

    switch_s = 0.4

    def _do(self, what: str) -> None:
        threading.Event().wait(self.switch_s)


@pytest.mark.parametrize("target", ["broker", "consumer"])
@pytest.mark.parametrize("failure", [RuntimeError("librdkafka error -185"), BrokenPipeError(32, "Broken pipe")])
@pytest.mark.parametrize("on", [False, True])
def test_a_failed_switch_changes_nothing_and_can_be_repeated(target: str, failure: Exception, on: bool) -> None:
    stubborn = Stubborn()
    control = Control(processes=stubborn, broker=stubborn)
    try:
        channel = control.environment["DEVSERVER_SOCKET"], control.environment["DEVSERVER_KEY"]
        if on:
            ask(*channel, target=target, on=False)
        before = state(channel)
        stubborn.refuses = failure
        for _ in range(2):
            with pytest.raises(SwitchFailed, match=f"The {target} was not switched: .*{failure.args[-1]}"):
                ask(*channel, target=target, on=on)
            assert state(channel) == before
        stubborn.refuses, stubborn.done = None, []
        assert ask(*channel, target=target, on=on)["broker"] == ("off" if (target, on) == ("broker", False) else "on")
        assert len(stubborn.done) == 1
    finally:
        control.close()


def test_an_embedded_broker_reports_a_failed_switch(
    channel: tuple[str, str], kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commerce.devserver.embedded_kafka._BROKER_ID", 4711)
    with pytest.raises(SwitchFailed, match="The broker was not switched: the embedded broker did not go down"):
        ask(*channel, target="broker", on=False)
    assert state(channel)["broker"] == "on"
    monkeypatch.undo()
    assert ask(*channel, target="broker", on=False)["broker"] == "off"
    monkeypatch.setattr("commerce.devserver.embedded_kafka._BROKER_ID", 4711)
    with pytest.raises(SwitchFailed, match="The broker was not switched: the embedded broker did not come back"):
        ask(*channel, target="broker", on=True)
    assert state(channel)["broker"] == "off"


@pytest.mark.parametrize("on", [False, True])
def test_a_slow_switch_is_waited_for(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    slow = Slow()
    control = Control(processes=slow, broker=slow)
    try:
        channel = control.environment["DEVSERVER_SOCKET"], control.environment["DEVSERVER_KEY"]
        if on:
            ask(*channel, target="broker", on=False)
        monkeypatch.setattr("commerce.devserver.control.TIMEOUT_S", slow.switch_s / 4)
        assert ask(*channel, target="broker", on=on)["broker"] == ("on" if on else "off")
    finally:
        control.close()


def test_nothing_else_is_switched(channel: tuple[str, str]) -> None:
    assert ask(*channel, target="web", on=False) == {"consumer": "on", "broker": "on"}


def test_a_wrong_key_switches_nothing(channel: tuple[str, str]) -> None:
    with pytest.raises(ControlUnavailable):
        ask(channel[0], "wrong", target="consumer", on=False)
    assert state(channel)["consumer"] == "on"


@pytest.mark.parametrize(
    "request_line", [b"", b"\n", b"[]\n", b"{}\n", b"\xff\n", b'{"key": "\\u00e9"}\n', b"x" * 10_000]
)
def test_a_malformed_request_leaves_the_channel_working(channel: tuple[str, str], request_line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(channel[0])
        connection.sendall(request_line)
        connection.shutdown(socket.SHUT_WR)
    assert state(channel)["consumer"] == "on"


def test_a_silent_client_blocks_the_channel_briefly(channel: tuple[str, str]) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(channel[0])
        assert state(channel)["consumer"] == "on"


def test_a_frozen_run_is_unavailable_within_a_second(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(tmp_path / "frozen"))
        frozen.listen(1)
        started = time.monotonic()
        with pytest.raises(ControlUnavailable):
            ask(str(tmp_path / "frozen"), "key")
        assert time.monotonic() - started < 1


def test_an_ended_run_is_unavailable_and_leaves_no_socket(control: Control, channel: tuple[str, str]) -> None:
    control.close()
    with pytest.raises(ControlUnavailable):
        ask(*channel)
