"""The requests by which the start page of a running `make run` stops and starts the consumer and the broker."""

import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from commerce.devserver.embedded_postgres import data_home
from testkit.processes import free_port
from testkit.waiting import wait_until
from testkit.whole_run import Run, copy_checkout


class StartPage:
    """Sends the same requests as the start page's script, with the CSRF token of the page."""

    def __init__(self, site: str) -> None:
        self.http = httpx.Client(base_url=site, timeout=10, trust_env=False)
        page = self.http.get("/", headers={"accept": "text/html"}).text
        (csrf,) = re.findall('name="csrfmiddlewaretoken" value="(.+?)"', page)
        self.http.headers["X-CSRFToken"] = csrf
        self.access = self.ask("token")["access"]
        self.orders: list[int] = []

    def ask(self, what: str, **body: Any) -> Any:
        return self.http.post(f"/devserver/{what}", json=body).raise_for_status().json()

    def place_order(self) -> None:
        body = {"items": [{"productId": 1, "quantity": 1, "price": 10}]}
        answer = self.http.post("/api/orders", json=body, headers={"authorization": f"Bearer {self.access}"})
        assert answer.status_code == 201
        self.orders.append(answer.json()["id"])

    def state(self) -> Any:
        return self.ask("state", orders=self.orders)

    def switch(self, target: str, *, on: bool) -> None:
        self.ask("switch", target=target, on=on)
        wait_until(lambda: self.state()[target] == ("on" if on else "off"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Start one run for all tests of this module. The last test ends it."""
    tmp_path = tmp_path_factory.mktemp("checkout")
    copy_checkout(tmp_path)
    run = Run(tmp_path, free_port())
    try:
        assert run.says(f"READY {run.site}\n"), run.log.read_text()
        yield run
    finally:
        if run.process.poll() is None:
            run.stop()
        if data_home(tmp_path) != tmp_path / "var":
            shutil.rmtree(data_home(tmp_path))


def consumers(run: Run) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(run.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "consume" in child.cmdline():
                found.append(child)
    return found


def test_stopped_parts_come_back_and_lose_nothing(run: Run) -> None:
    page = StartPage(run.site)
    page.switch("broker", on=False)
    page.switch("consumer", on=False)
    assert consumers(run) == []
    for _ in range(3):
        page.place_order()
    counts = page.state()["counts"]
    assert (counts["orders"], counts["pending"], counts["notifications"]) == (3, 3, 0)

    page.switch("broker", on=True)
    wait_until(lambda: page.state()["counts"]["published"] == 3)
    assert page.state()["counts"]["notifications"] == 0
    wait_until(lambda: page.state()["lag"] == 3)

    page.switch("consumer", on=True)
    wait_until(lambda: page.state()["counts"]["notifications"] == 3)
    wait_until(lambda: page.state()["lag"] == 0)
    counts = page.state()["counts"]
    assert (counts["pending"], counts["underWay"], counts["doubled"], counts["lost"]) == (0, 0, 0, 0)

    # The log reports no death of a stopped consumer. A consumer that dies later is started again.
    assert not run.says("died")
    (consumer,) = consumers(run)
    consumer.send_signal(signal.SIGKILL)
    page.place_order()
    wait_until(lambda: page.state()["counts"]["notifications"] == 4)
    assert run.says("died (-9), starting it again")

    # Switch faster than a process starts or stops: the last switch counts, and two consumers never run at once.
    for on in (False, True, False, True, False, True):
        page.ask("switch", target="consumer", on=on)
        assert len(consumers(run)) <= 1
    page.switch("consumer", on=True)
    page.place_order()
    wait_until(lambda: page.state()["counts"]["notifications"] == 5)
    wait_until(lambda: len(consumers(run)) == 1)


def test_a_frozen_run_is_reported_as_unavailable(run: Run) -> None:
    page = StartPage(run.site)
    run.process.send_signal(signal.SIGSTOP)
    thaw = threading.Timer(30, run.process.send_signal, [signal.SIGCONT])
    thaw.start()
    try:
        answer = page.http.post("/devserver/state", json={"orders": []})
        assert answer.status_code == 503
        assert answer.elapsed.total_seconds() < 1.5
        page.place_order()
    finally:
        thaw.cancel()
        run.process.send_signal(signal.SIGCONT)
    wait_until(lambda: page.state()["counts"]["notifications"] == 1)


def test_a_run_with_everything_stopped_still_ends_cleanly(run: Run) -> None:
    page = StartPage(run.site)
    page.switch("consumer", on=False)
    page.switch("broker", on=False)
    page.place_order()
    children = psutil.Process(run.process.pid).children(recursive=True)
    assert run.stop() == 0, run.log.read_text()
    wait_until(lambda: not any(one.is_running() for one in children))
