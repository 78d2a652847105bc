"""The previous release is replaced by this one under load, its web server first or its other processes first."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from events.kafka.lag import group_lag
from testkit.customer import Customer
from testkit.participants.provider import ProviderProcess
from testkit.processes import CHECKOUT, ProductProcess, WebServer
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, RELAY
from tests.faults.groups import shares
from tests.faults.oracle import Oracle

CUSTOMERS = 2
CHANGES = 60
"""Number of changes of orders that each mixture of releases must acknowledge."""
NEW_GROUPS = ("sales", "payments", "shipping", "fulfilment")
NEW_WORKERS = (("django", "run_fulfilment"),)
"""Commands of the workers that the previous release does not have. `NEW_GROUPS` names the groups that it lacks."""
TROUBLE = re.compile(r"^(WARNING|ERROR|CRITICAL) .*|^Traceback.*", re.MULTILINE)
VERDICTS = {
    "verify_orders": r"checked \d+, wrong 0\n",
    "verify_sales": r"checked \d+ intervals, wrong 0\n",
    "reconcile_events": r"missing 0, repaired 0\n",
}
"""Commands that look for what is lost, doubled or wrong, and what each prints if it finds nothing."""


class Release:
    """The processes of one release, run from `checkout`. Each has a log in `logs`."""

    def __init__(self, checkout: Path, logs: Path, **env: str) -> None:
        self._checkout = checkout
        self._logs = logs
        self._env = env
        self.started: list[ProductProcess] = []

    def start(self, *command: str) -> ProductProcess:
        log = self._logs / f"{len(self.started)}-{command[1]}.log"
        self.started.append(ProductProcess(*command, log=log, env=self._env, checkout=self._checkout))
        return self.started[-1]

    def start_web(self) -> WebServer:
        web = WebServer(log=self._logs / f"{len(self.started)}-web.log", env=self._env, checkout=self._checkout)
        self.started.append(web)
        return web

    def prepare(self) -> None:
        """Migrate the database, and create the topics."""
        for process in [self.start("django", command) for command in ("migrate", "create_topics")]:
            assert process.process.wait(60) == 0, process.log.read_text()

    def trouble(self) -> list[str]:
        """Return the lines that the processes have logged as warnings or errors."""
        return [line.group() for one in self.started for line in TROUBLE.finditer(one.log.read_text())]


@pytest.fixture
def old(previous_release: Path, empty_servers: None, tmp_path: Path) -> Iterator[Release]:
    with _release(previous_release, tmp_path / "old") as release:
        yield release


@pytest.fixture
def new(empty_servers: None, provider: ProviderProcess, tmp_path: Path) -> Iterator[Release]:
    with _release(CHECKOUT, tmp_path / "new", **provider.env) as release:
        yield release


@contextmanager
def _release(checkout: Path, logs: Path, **env: str) -> Iterator[Release]:
    logs.mkdir()
    release = Release(checkout, logs, **env)
    yield release
    for process in release.started:
        process.kill()
        print(f"--- {process.log}\n{process.log.read_text()[-2000:]}")


class Rollout:
    """A site of the old release under load, whose processes are replaced by those of the new release."""

    def __init__(self, old: Release, new: Release) -> None:
        self._old, self._new = old, new
        old.prepare()
        self._old_web = self._web = old.start_web()
        self._old_workers = [old.start(*CONSUME), old.start(*RELAY)]
        self.oracle = Oracle([Customer(self._old_web.url) for _ in range(CUSTOMERS)])
        self._load = ExitStack()
        self._load.enter_context(self.oracle.shopping(self._old_web.url))

    def migrate(self) -> None:
        self.oracle.wait_for_more(CHANGES)
        self._new.prepare()
        self.oracle.wait_for_more(CHANGES)

    def replace_web(self) -> None:
        """Let both web servers take orders, then only the new one."""
        self._web = self._new.start_web()
        with self._load:
            self._load = ExitStack()
            self._load.enter_context(self.oracle.shopping(self._web.url))
            self.oracle.wait_for_more(CHANGES)
        assert self._old_web.stop() == 0
        self.oracle.wait_for_more(CHANGES)

    def replace_workers(self) -> None:
        """Start the consumers and relays of the new release, and stop the old ones after both have shared the work.

        This includes the start of the groups and workers that the old release lacks.
        """
        for command in (CONSUME, RELAY, ("django", "consume", *NEW_GROUPS), *NEW_WORKERS):
            self._new.start(*command)
        wait_until(lambda: len(shares()) == 2)
        self.oracle.wait_for_more(CHANGES)
        for process in self._old_workers:
            assert process.stop() == 0, process.log.read_text()
        self.oracle.wait_for_more(CHANGES)

    def customer(self) -> Customer:
        """Return a new customer of the current web server. The load does not use this customer."""
        return Customer(self._web.url)

    def end_load(self) -> None:
        self._load.close()


@pytest.fixture
def rollout(old: Release, new: Release) -> Iterator[Rollout]:
    rollout = Rollout(old, new)
    yield rollout
    rollout.end_load()
    rollout.oracle.close()


@pytest.mark.parametrize("first", ["web", "workers"])
def test_rollout_loses_and_doubles_nothing(first: str, rollout: Rollout, old: Release, new: Release) -> None:
    """A rollout as in docs/operations.md migrates, lets both releases work together, and then stops the old processes.

    `first` says which processes are replaced first. Meanwhile the API accepts every order and every change of an order.
    """
    rollout.migrate()
    if first == "workers":
        rollout.replace_workers()
    rollout.replace_web()
    customer = rollout.customer()
    paid = customer.place_order()["id"]
    customer.http.post(f"/api/orders/{paid}/checkout", json={"paymentToken": "tok_ok"}).raise_for_status()
    if first == "web":
        rollout.replace_workers()
    rollout.end_load()

    figures = rollout.oracle.settle_and_compare()
    assert (figures.unanswered, figures.dead_letters, figures.repeats) == (0, 0, 0), figures
    assert figures.events == figures.notifications == figures.acknowledged
    wait_until(lambda: customer.http.get(f"/api/orders/{paid}/fulfilment").json()["state"] == "COMPLETED")
    wait_until(lambda: len(customer.notifications(paid)) == 2)
    wait_until(lambda: all(one.lag == 0 for one in group_lag(topic="order-events", group="sales")))
    verdicts = {command: new.start("django", command) for command in VERDICTS}
    for command, process in verdicts.items():
        assert process.process.wait(60) == 0, process.log.read_text()
        assert re.search(VERDICTS[command], process.log.read_text()), process.log.read_text()
    assert old.trouble() + new.trouble() == []
