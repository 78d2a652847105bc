"""A rebuild that is killed with SIGKILL at any point leaves true sums, and the next one works."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection

from sales.models import CustomerSummary, Generations, SalesBucket
from sales.sums.rebuilding import is_interrupted, rebuild
from sales.tests.shop import foreign, foreign_events, handle, place_orders, sums
from testkit.processes import ProductProcess, is_frozen
from testkit.waiting import wait_until
from tests.faults.launcher import sabotage

pytestmark = pytest.mark.django_db(transaction=True)

ANNOUNCED = "sales.sums.rebuilding:_begin"
STEP_BEGUN = "sales.sums.recounting:_end_of_step"
COUNTED = "sales.sums.rebuilding:recount"
COMMITTED = "sales.sums.rebuilding:_execute"
SWAPPED = "sales.sums.rebuilding:delete_old_generations"


def ignore(done: float) -> None:
    """Do nothing: the test ignores the progress of the rebuild."""


def generations() -> set[int]:
    """Return the numbers of the generations (versions of the sums) that have rows in the tables of sums."""
    return {
        *SalesBucket.objects.values_list("generation", flat=True),
        *CustomerSummary.objects.values_list("generation", flat=True),
    }


@pytest.fixture
def start_rebuild(tmp_path: Path) -> Callable[..., ProductProcess]:
    """Return a function that starts `rebuild_sales` on this test's database, and sabotages one of its calls.

    The function's arguments say what happens at which call. See `tests.faults.launcher.sabotage`.
    """
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")

    def start(what: str, where: str, *, on_call: int) -> ProductProcess:
        return ProductProcess(
            *("django", "rebuild_sales"),
            log=tmp_path / "rebuild.log",
            env={"DATABASE_URL": urlunsplit(url)},
            launcher=sabotage(what, where, on_call=on_call),
        )

    return start


@pytest.mark.parametrize(
    ("what", "where", "on_call", "is_swapped"),
    [
        pytest.param("kill-after", ANNOUNCED, 1, False, id="after the generation was announced"),
        pytest.param("kill-after", STEP_BEGUN, 1, False, id="within the first step"),
        pytest.param("kill-after", STEP_BEGUN, 2, False, id="after our own events were counted"),
        pytest.param("kill-after", COUNTED, 1, False, id="after all events were counted"),
        pytest.param("kill-after", COMMITTED, 1, False, id="after the new sums were committed"),
        pytest.param("kill-before", SWAPPED, 2, True, id="after the swap"),
    ],
)
def test_a_killed_rebuild_leaves_sums_that_are_true(
    start_rebuild: Callable[..., ProductProcess], what: str, where: str, on_call: int, is_swapped: bool
) -> None:
    values = [*place_orders(6), *foreign_events(10)]
    handle(values)
    before = sums(), sums("sales_customersummary")
    killed = start_rebuild(what, where, on_call=on_call)
    assert killed.process.wait(120) == -signal.SIGKILL, killed.log.read_text()
    assert (sums(), sums("sales_customersummary")) == before
    assert (Generations.objects.get().live > 0) == is_swapped
    assert is_interrupted() == (not is_swapped)
    assert len(generations()) == (1 if where in (ANNOUNCED, STEP_BEGUN, COUNTED) else 2)

    # Consumers go on after the kill.
    handle([foreign(user_id=1)])
    now_true = sums(), sums("sales_customersummary")
    assert now_true != before
    assert rebuild(report=ignore) == len(values) + 1
    assert (sums(), sums("sales_customersummary")) == now_true
    assert generations() == {Generations.objects.get().live}
    assert not is_interrupted()


def test_sigterm_ends_a_rebuild_in_order(start_rebuild: Callable[..., ProductProcess]) -> None:
    """The command says that the old sums stay, and leaves nothing for the next rebuild to clean up."""
    handle(foreign_events(10))
    before = sums()
    stopped = start_rebuild("freeze-after", STEP_BEGUN, on_call=1)
    wait_until(lambda: is_frozen(stopped.family()[0]))
    stopped.process.send_signal(signal.SIGTERM)
    stopped.thaw()
    assert stopped.process.wait(60) == 1
    assert stopped.says("CommandError: Stopped. Readers see the old sums: run it again.")
    assert sums() == before
    assert not is_interrupted()
