"""A walk through a table sees each row that was there at its start once, whatever happens in between."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from events.database import in_steps
from events.models import OutboxEvent
from testkit.factories import OutboxEventFactory

pytestmark = pytest.mark.django_db


def made(number: int) -> list[int]:
    return [row.pk for row in OutboxEventFactory.create_batch(number)]


@pytest.mark.parametrize(("rows", "sizes"), [(0, []), (1, [1]), (2, [2]), (3, [2, 1]), (5, [2, 2, 1])])
def test_every_row_comes_once_oldest_first(rows: int, sizes: list[int]) -> None:
    keys = made(rows)
    steps = list(in_steps(OutboxEvent.objects.order_by("-pk"), size=2))
    assert [len(step) for step in steps] == sizes
    assert [key for step in steps for key in step] == keys


def test_only_rows_of_the_query_come() -> None:
    made(2)
    wanted = OutboxEventFactory.create(topic="wanted").pk
    made(1)
    assert list(in_steps(OutboxEvent.objects.filter(topic="wanted"), size=2)) == [[wanted]]


def test_rows_that_are_inserted_meanwhile_do_not_keep_it_going() -> None:
    keys = made(3)
    seen = []
    for step in in_steps(OutboxEvent.objects.all(), size=1):
        seen += step
        made(1)
        assert len(seen) <= len(keys)
    assert seen == keys


def test_rows_that_are_deleted_meanwhile_hide_no_other() -> None:
    keys = made(5)
    seen = []
    for step in in_steps(OutboxEvent.objects.all(), size=2):
        seen += step
        OutboxEvent.objects.filter(pk__lte=step[-1]).delete()
    assert seen == keys


def test_no_step_loads_more_than_keys() -> None:
    made(3)
    with CaptureQueriesContext(connection) as queries:
        list(in_steps(OutboxEvent.objects.all(), size=2))
    # The newest, two steps and the empty one.
    assert len(queries) == 4
    assert not any('"value"' in query["sql"] for query in queries)
