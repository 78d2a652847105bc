"""Idle workers of the web server record the lag. They go on after their database connections were cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.database import rows, value
from testkit.processes import WebServer
from testkit.waiting import wait_until


@pytest.fixture
def web(site_database: None, tmp_path: Path) -> Iterator[WebServer]:
    rows("DELETE FROM commerce_lag_reading")
    web = WebServer(log=tmp_path / "web.log")
    yield web
    web.kill()


def slots() -> int:
    return int(value("SELECT count(*) FROM commerce_lag_reading"))


def test_idle_workers_record_each_slot_once(web: WebServer) -> None:
    wait_until(lambda: slots() >= 2)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%%commerce_lag_reading%%'"
    rows(f"{cut} AND pid <> pg_backend_pid()")
    before = slots()
    wait_until(lambda: slots() >= before + 2)
    assert "The lag is not recorded" in web.log.read_text()
    seconds = rows("SELECT extract(epoch FROM slot)::bigint FROM commerce_lag_reading ORDER BY slot")
    assert {second % 5 for (second,) in seconds} == {0}
