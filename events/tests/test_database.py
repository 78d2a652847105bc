"""`in_steps` yields the rows that exist when its walk begins, each once, even if rows change during the walk."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from events.database import in_steps
from events.models import OutboxEvent
from testkit.factories import OutboxEventFactory

pytestmark = pytest.mark.django_db


def create_rows(number: int) -> list[int]:
    return [row.pk for row in OutboxEventFactory.create_batch(number)]


@pytest.mark.parametrize(("rows", "sizes"), [(0, []), (1, [1]), (2, [2]), (3, [2, 1]), (5, [2, 2, 1])])
def test_every_row_is_yielded_once_oldest_first(rows: int, sizes: list[int]) -> None:
    keys = create_rows(rows)
    steps = list(in_steps(OutboxEvent.objects.order_by("-pk"), size=2))
    assert [len(step) for step in steps] == sizes
    assert [key for step in steps for key in step] == keys


def test_the_walk_yields_only_rows_of_the_query() -> None:
    create_rows(2)
    wanted = OutboxEventFactory.create(topic="wanted").pk
    create_rows(1)
    assert list(in_steps(OutboxEvent.objects.filter(topic="wanted"), size=2)) == [[wanted]]


def test_rows_inserted_during_the_walk_are_left_out() -> None:
    keys = create_rows(3)
    seen = []
    for step in in_steps(OutboxEvent.objects.all(), size=1):
        seen += step
        create_rows(1)
        assert len(seen) <= len(keys)
    assert seen == keys


def test_rows_deleted_during_the_walk_hide_no_other() -> None:
    keys = create_rows(5)
    seen = []
    for step in in_steps(OutboxEvent.objects.all(), size=2):
        seen += step
        OutboxEvent.objects.filter(pk__lte=step[-1]).delete()
    assert seen == keys


def test_a_step_loads_only_keys() -> None:
    create_rows(3)
    with CaptureQueriesContext(connection) as queries:
        list(in_steps(OutboxEvent.objects.all(), size=2))
    # The queries: the newest key, two steps, and the empty step at the end.
    assert len(queries) == 4
    assert not any('"value"' in query["sql"] for query in queries)
