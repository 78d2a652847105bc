"""Admin lists of tables that grow without a limit. No class of this module reads all rows of a table."""

import json
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, cast

from django.contrib import admin
from django.core.paginator import Paginator
from django.db import models
from django.http import HttpRequest
from django.utils import timezone

EXACT_COUNT_LIMIT = 1_000
"""Largest number of rows that is counted exactly. For more rows, PostgreSQL's estimate is shown."""
FILTER_SAMPLE_ROWS = 10_000
"""Number of the newest rows from which a filter takes the values that it offers."""
PERIOD_STARTS = {"year": {"month": 1, "day": 1}, "month": {"day": 1}, "day": {}}


class EstimatingPaginator(Paginator):  # type: ignore[type-arg]
    """Paginator that counts at most `EXACT_COUNT_LIMIT` rows, and estimates larger numbers with the query planner."""

    @cached_property
    def count(self) -> int:
        rows = cast(models.QuerySet[Any], self.object_list).order_by()
        counted: int = rows[: EXACT_COUNT_LIMIT + 1].count()
        if counted <= EXACT_COUNT_LIMIT:
            return counted
        (explained,) = json.loads(rows.explain(format="json"))
        return max(counted, int(explained["Plan"]["Plan Rows"]))


class NewestValuesFilter(admin.AllValuesFieldListFilter):
    """Filter that offers the values of the newest `FILTER_SAMPLE_ROWS` rows."""

    def __init__(
        self,
        field: Any,
        request: HttpRequest,
        params: dict[str, Any],
        model: type[models.Model],
        model_admin: Any,
        field_path: str,
    ) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)
        newest = model._default_manager.order_by("-pk").values_list(field.name, flat=True)[:FILTER_SAMPLE_ROWS]
        self.lookup_choices: Any = sorted(set(newest))


class PeriodsQuerySet(models.QuerySet[Any]):
    """Query set for a list with admin's date hierarchy.

    The hierarchy offers all periods from the first row to the last, also those without rows. So only the times of the
    first and of the last row are read.
    """

    def datetimes(self, field_name: str, kind: str, order: str = "ASC", tzinfo: Any = None) -> Any:
        ends = self.aggregate(first=models.Min(field_name), last=models.Max(field_name))
        if ends["first"] is None:
            return []
        zone = tzinfo or timezone.get_current_timezone()
        first, last = (ends[end].astimezone(zone) for end in ("first", "last"))
        days = (first.date() + timedelta(days=n) for n in range((last.date() - first.date()).days + 1))
        starts = {day.replace(**PERIOD_STARTS[kind]) for day in days}
        return [datetime(start.year, start.month, start.day, tzinfo=zone) for start in sorted(starts)]
