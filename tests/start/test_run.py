"""`make run` in a copy of the checkout, so that it does not disturb the developer's own run."""

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

import httpx
import psutil
import pytest

import commerce.devserver.run.__main__ as run_module
from commerce.devserver.embedded_postgres import data_home
from testkit.customer import Customer
from testkit.processes import free_port
from testkit.waiting import wait_until
from testkit.whole_run import Run, copy_checkout, environment

GROUP = 'group="notification-consumer-group"'
MAX_RESIDENT_BYTES = 2**30


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    copy_checkout(tmp_path)
    yield tmp_path
    if data_home(tmp_path) != tmp_path / "var":
        shutil.rmtree(data_home(tmp_path))


def test_a_run_restarts_dead_processes_and_leaves_none_behind(checkout: Path) -> None:
    run = Run(checkout, free_port())
    try:
        assert run.says(f"READY {run.site}\n"), run.log.read_text()
        assert '"totalAmount":200.00,"status":"PENDING"' in run.log.read_text()
        assert "주문이 생성되었습니다. 주문번호: 1, 금액: 200.00원" in run.log.read_text()
        assert not re.search(r"WARNING|ERROR|Traceback", run.log.read_text())
        run_env = checkout / "var" / "run.env"
        assert run_env.stat().st_mode & 0o077 == 0
        lag = subprocess.run(
            [sys.executable, "manage.py", "consumer_lag"],
            cwd=checkout,
            env=environment(),
            capture_output=True,
            check=False,
        )
        assert lag.returncode == 0, lag.stderr

        metrics = _metrics(checkout, run.site)
        for metric_of_each_process in (
            'events_published_total{path="fast",topic="order-events"} 1.0',
            f'events_consumed_total{{event_type="ORDER_CREATED",{GROUP},outcome="handled"}} 1.0',
            f"event_end_to_end_seconds_count{{{GROUP}}} 1.0",
            "outbox_pending 0.0",
        ):
            assert f"{metric_of_each_process}\n" in metrics
        assert len(re.findall("^kafka_consumergroup_lag_seconds{", metrics, re.MULTILINE)) >= 1
        by_sales = 'events_consumed_total{event_type="ORDER_CREATED",group="sales",outcome="handled"} 1.0\n'
        wait_until(lambda: by_sales in _metrics(checkout, run.site))

        customer = Customer(run.site)
        for _ in range(100):
            customer.place_order()
        assert sum(map(_resident_bytes, run.processes())) < MAX_RESIDENT_BYTES

        run.child("consume").send_signal(signal.SIGKILL)
        order = customer.place_order()
        wait_until(lambda: customer.notifications(order["id"]))
        assert run.says("died (-9), starting it again")
        customer.http.close()
    finally:
        assert run.stop() == 0, run.log.read_text()
    assert not run_env.exists()
    wait_until(lambda: not any(one.is_running() for one in run.children))


def test_a_signal_that_python_swallowed_still_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python may swallow the KeyboardInterrupt that a signal raises, for example within a destructor."""

    def prepare() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(run_module, "VAR", tmp_path)
    monkeypatch.setattr(run_module, "environment", lambda *_: {})
    monkeypatch.setattr(run_module, "run_env", nullcontext)
    monkeypatch.setattr(run_module, "prepare_database_and_topics", lambda _: prepare())
    monkeypatch.setattr(run_module, "Supervisor", None)
    monkeypatch.setattr(run_module, "_asked_to_stop", threading.Event())
    before = signal.signal(signal.SIGTERM, run_module._exit_in_order)
    try:
        with pytest.raises(KeyboardInterrupt), ExitStack() as cleanup:
            run_module._run(cleanup)
    finally:
        signal.signal(signal.SIGTERM, before)


def _resident_bytes(process: psutil.Process) -> int:
    """Return the memory of `process` in bytes, with its share of the pages that it shares with other processes."""
    return int(process.memory_full_info().pss)


def _metrics(checkout: Path, site: str) -> str:
    run_env = (checkout / "var" / "run.env").read_text()
    (token,) = re.findall("^METRICS_TOKEN=(.+)$", run_env, re.MULTILINE)
    return httpx.get(f"{site}/metrics", headers={"authorization": f"Bearer {token}"}, trust_env=False).text
