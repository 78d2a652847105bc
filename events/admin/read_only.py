"""Base of the admin of rows that the system writes. Lists may have any length, and only row actions change rows."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString

from events.admin.actions import RowActionsAdmin
from events.admin.large_tables import EstimatingPaginator
from events.templatetags.moments import moment

VALUE_LOOKUPS = ("", "exact", "isempty")
PERIOD_LOOKUPS = ("year", "month", "day", "gte", "lt")


class ReadOnlyAdmin(RowActionsAdmin):
    """Base class for the admin of models whose rows a user can view, but cannot add, edit or delete."""

    # Unfold's own template shows times without UTC.
    object_history_template = "admin/row_history.html"
    paginator = EstimatingPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    # Any other order has no index and would read every row.
    sortable_by = ()

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return [self._with_zone(name) for name in super().get_list_display(request)]

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        rows = [
            tuple(map(self._with_zone, row)) if isinstance(row, tuple) else self._with_zone(row)
            for row in self.get_fields(request, obj)
        ]
        return [(None, {"fields": rows})]

    def _with_zone(self, name: Any) -> Any:
        """Return a column that shows the field `name` with the time zone; `name` itself if the field has no times."""
        field = next((one for one in self.opts.local_fields if one.name == name), None)
        return column_of_times(field) if isinstance(field, models.DateTimeField) else name

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Return whether a filter of the list makes this lookup. Any other lookup could read every row of the table."""
        filters = [one[0] if isinstance(one, tuple) else one for one in self.list_filter]
        names = {getattr(one, "parameter_name", one) for one in filters}
        field, _, kind = lookup.partition("__")
        allowed = PERIOD_LOOKUPS if field == self.date_hierarchy else VALUE_LOOKUPS if field in names else ()
        return kind in allowed and super().lookup_allowed(lookup, value, request)

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        """Return the rows that match the search term. A subclass implements it with a query that uses an index."""
        raise NotImplementedError

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Any], search_term: str
    ) -> tuple[models.QuerySet[Any], bool]:
        term = search_term.strip()
        return self.find(queryset, term) if term else queryset, False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


def column_of_times(field: "models.DateTimeField[Any, Any]") -> Callable[[models.Model], SafeString | None]:
    """Return a column for `list_display` and `fields` that shows the times of `field` with their time zone."""

    @admin.display(description=field.verbose_name)
    def column(row: models.Model) -> SafeString | None:
        time = getattr(row, field.name)
        return time and moment(time)

    # By this name, Django names the cell's class and looks up the help text.
    column.__name__ = field.name
    return column


def badge(text: object, colour: str) -> str:
    """Return the HTML of a label. `colour` is one of Unfold's variants (success, info, warning, danger) or empty."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "variant": colour})


def preformatted(text: str) -> SafeString:
    # The keyboard scrolls only an element that takes the focus.
    return format_html('<pre class="message" tabindex="0">{}</pre>', text)


def linked(place: str, text: object) -> SafeString:
    """Return the HTML of a link to the URL `place`. Its text is data, marked so that browsers do not translate it."""
    return format_html('<a class="row-link" href="{}" translate="no">{}</a>', place, text)


def untranslated(text: str) -> SafeString:
    """Return the HTML of a text that is data, marked so that browsers do not translate it."""
    return format_html('<span translate="no">{}</span>', text)
