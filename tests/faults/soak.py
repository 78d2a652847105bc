"""The soak test: customers order for a long time while a fault happens every few seconds. `make soak` runs it.

After each round of faults, the test waits until the site has settled. It compares the answers that customers got with
the site's data, and all checkouts with the provider's book, a file of payments and shipments. The test prints its
seed; `SOAK_SEED` with this value repeats the faults.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from commerce.devserver.provider.faults import RANDOM_FAULTS
from testkit import database
from testkit.apache_kafka import ApacheKafka
from testkit.customer import Customer
from testkit.kafka_client import produce
from testkit.participants.provider import ProviderProcess
from testkit.postgres import CrashingPostgres
from testkit.processes import ProductProcess, WebServer
from testkit.proxy import Proxy
from tests.faults.checkouts import CONSUME_FULFILMENT, WORK_FULFILMENT, Checkouts, env_of
from tests.faults.comparison import Figures
from tests.faults.conftest import CONSUME, CUSTOMERS, RELAY, Site, Start
from tests.faults.oracle import Oracle

MINUTES = float(os.environ.get("SOAK_MINUTES", "20"))
SEED = int(os.environ.get("SOAK_SEED", time.time()))
ROUND_S = 180
"""Seconds of a round of faults, which must be shorter than the lifetime of an access token."""
PAUSE_RANGE_S = (0.5, 3.0)
"""Shortest and longest pause between two faults, in seconds."""
BUYERS = 2
"""Number of customers who check their orders out."""
PROVIDER_FAULT_RATE = "0.05"
FAULT_RANGE_S = (0.5, 8.0)
"""Shortest and longest duration of a fault, in seconds: below and above the timeout of a consumer's session."""


@dataclass
class Summary:
    """The figures of all rounds together."""

    faults: Counter[str] = field(default_factory=Counter)
    rounds: list[Figures] = field(default_factory=list)
    checkouts: Counter[str] = field(default_factory=Counter)
    """Number of checkouts by the state in which they ended or are stuck."""
    poison: int = 0
    most_megabytes: Counter[str] = field(default_factory=Counter)
    most_descriptors: Counter[str] = field(default_factory=Counter)
    slowest_recovery: float = 0.0
    """The longest time, in seconds, from the end of a round's faults until the site had settled."""

    def record_sizes(self, processes: dict[str, ProductProcess]) -> None:
        """Measure the memory and open files of each process and its children. Keep the largest values for each name."""
        for name, process in processes.items():
            # The web server may have replaced a worker.
            with suppress(psutil.NoSuchProcess):
                self._record_sizes(name, process)

    def _record_sizes(self, name: str, process: ProductProcess) -> None:
        for member in process.family():
            self.most_megabytes[name] = max(self.most_megabytes[name], member.memory_info().rss // 2**20)
            self.most_descriptors[name] = max(self.most_descriptors[name], member.num_fds())

    def print(self) -> None:
        def total(name: str) -> int:
            return sum(getattr(figures, name) for figures in self.rounds)

        print(f"\nfaults          {sum(self.faults.values())}: {dict(self.faults.most_common())}")
        print(f"orders          {total('orders')}, {total('unanswered')} attempts without an answer")
        print(f"acknowledged    {total('acknowledged')} changes")
        print(f"events          {total('events')}, {total('repeats')} of them more than once on the topic")
        print(f"notifications   {total('notifications')}")
        print(f"checkouts       {self.checkouts.total()}: {dict(self.checkouts)}, as the provider's book says")
        print(f"lost, doubled   0, 0 (compared after each of {len(self.rounds)} rounds)")
        print(f"dead letters    {self.poison}, one for each poison message")
        print(f"settled within  {self.slowest_recovery:.1f} s after the last fault of a round")
        print(f"most memory     {dict(self.most_megabytes)} MiB a process")
        print(f"most files      {dict(self.most_descriptors)} descriptors a process")


class Chaos:
    """Causes random faults, and restarts the processes that the faults have ended."""

    def __init__(
        self,
        processes: dict[str, ProductProcess],
        kafka: ApacheKafka,
        postgres: CrashingPostgres,
        proxy: Proxy,
        provider: ProviderProcess,
    ) -> None:
        self.processes = processes
        self.proxy = proxy
        self.provider = provider
        self._kafka = kafka
        self.poison = 0
        """Number of poison messages sent so far."""
        self._faults: dict[str, Callable[[], None]] = {
            "killed": self._kill,
            "worker killed": self._kill_worker,
            "ended": self._end,
            "frozen": self._freeze,
            "poison": self._poison,
            "kafka stopped": lambda: self._for_a_while(kafka.stop, self._start_kafka),
            "kafka killed": lambda: self._for_a_while(kafka.kill, self._start_kafka),
            "kafka frozen": lambda: self._for_a_while(kafka.freeze, kafka.thaw),
            "refusing": lambda: self._for_a_while(proxy.refuse, proxy.heal),
            "swallowing": lambda: self._for_a_while(proxy.swallow, proxy.heal),
            "slow": lambda: self._for_a_while(lambda: proxy.delay(random.uniform(0.01, 0.5)), proxy.heal),
            "reset": proxy.reset,
            "answers dropped": lambda: proxy.drop_answers(random.randint(1, 20)),
            "postgres crashed": postgres.restart_immediately,
            "postgres away": lambda: self._for_a_while(postgres.crash, postgres.start),
            "provider away": lambda: self._for_a_while(provider.kill, provider.start),
            "provider fails": lambda: provider.fail(random.choice(RANDOM_FAULTS), of="", times=random.randint(1, 20)),
        }

    @property
    def web(self) -> WebServer:
        server = self.processes["web"]
        assert isinstance(server, WebServer)
        return server

    def strike(self) -> str:
        """Cause a random fault, end it, and return its name. Only "answers dropped" and "provider fails" may go on."""
        name = random.choice(list(self._faults))
        self._faults[name]()
        self._supervise()
        return name

    def _supervise(self) -> None:
        """Restart processes that ended at their start because PostgreSQL was down, as a supervisor does.

        Raises AssertionError if a process ended for another reason.
        """
        for kind, process in self.processes.items():
            if process.process.poll() is not None:
                last_words = process.log.read_text()[-3000:]
                assert "CommandError: The database does not answer" in last_words[-400:], f"{kind} ended: {last_words}"
                process.start()

    def _some_process(self) -> ProductProcess:
        return random.choice(list(self.processes.values()))

    def _kill(self) -> None:
        process = self._some_process()
        process.kill()
        process.start()

    def _kill_worker(self) -> None:
        random.choice(self.web.workers()).kill()

    def _end(self) -> None:
        process = random.choice([process for kind, process in self.processes.items() if kind != "web"])
        exit_code = process.stop()
        assert exit_code == 0, process.log.read_text()[-3000:]
        process.start()

    def _freeze(self) -> None:
        process = self._some_process()
        self._for_a_while(process.freeze, process.thaw)

    def _poison(self) -> None:
        self.poison += 1
        produce("order-events", f"soak: poison {self.poison}".encode())

    def _start_kafka(self) -> None:
        """Start Kafka, and try a second time if it ends during its recovery from a kill."""
        try:
            self._kafka.start()
        except RuntimeError:
            self._kafka.start()

    def _for_a_while(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        begin()
        try:
            time.sleep(random.uniform(*FAULT_RANGE_S))
        finally:
            end()


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[ProviderProcess]:
    provider = ProviderProcess(
        tmp_path / "book.sqlite3", PROVIDER_FAULT_RATE=PROVIDER_FAULT_RATE, PROVIDER_SILENCE_SECONDS="20"
    )
    yield provider
    provider.kill()


@pytest.mark.timeout(0)
def test_random_faults_lose_and_double_nothing(
    site: Site,
    start: Start,
    kafka: ApacheKafka,
    postgres: CrashingPostgres,
    proxy: Proxy,
    provider: ProviderProcess,
    capsys: pytest.CaptureFixture[str],
) -> None:
    random.seed(SEED)
    env = env_of(provider)
    processes = {
        "web": site.web,
        "consumer": site.consumer,
        "second consumer": start(*CONSUME),
        "relay": site.relay,
        "second relay": start(*RELAY),
        "fulfilment's consumer": start(*CONSUME_FULFILMENT, **env),
        "fulfilment's worker": start(*WORK_FULFILMENT, **env),
        "fulfilment's second worker": start(*WORK_FULFILMENT, **env),
    }
    chaos = Chaos(processes, kafka, postgres, proxy, provider)
    summary = Summary()
    ends_at = time.monotonic() + MINUTES * 60
    with capsys.disabled():
        print(f"\nsoak of {MINUTES:g} minutes, SOAK_SEED={SEED}", flush=True)
        while time.monotonic() < ends_at:
            _run_round(chaos, summary, ends_at)
            print(f"round {len(summary.rounds)}: {summary.rounds[-1]}", flush=True)
        summary.print()


def _run_round(chaos: Chaos, summary: Summary, ends_at: float) -> None:
    site = chaos.web.url
    with _customers(site) as customers:
        oracle = Oracle(customers)
        checkouts = Checkouts(oracle)
        with oracle.shopping(site), checkouts.shopping(site, customers=BUYERS):
            round_ends_at = min(time.monotonic() + ROUND_S, ends_at)
            while time.monotonic() < round_ends_at:
                time.sleep(random.uniform(*PAUSE_RANGE_S))
                summary.faults[chaos.strike()] += 1
                summary.record_sizes(chaos.processes)
            chaos.proxy.heal()
        stopped_at = time.monotonic()
        # The checkouts must end before the oracle compares, because a checkout under way changes its order.
        summary.checkouts += checkouts.settle_and_compare(chaos.provider)
        summary.rounds.append(oracle.settle_and_compare())
        summary.slowest_recovery = max(summary.slowest_recovery, time.monotonic() - stopped_at)
        oracle.close()
    summary.poison = database.value(
        "SELECT count(*) FROM events_deadletter WHERE convert_from(value, 'UTF8') LIKE 'soak: poison %%'"
    )
    assert summary.poison == chaos.poison


@contextmanager
def _customers(site: str) -> Iterator[list[Customer]]:
    customers = [Customer(site) for _ in range(CUSTOMERS)]
    try:
        yield customers
    finally:
        for customer in customers:
            customer.http.close()
