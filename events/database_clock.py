"""The database's clock, by which ages in the outbox are measured: clocks of processes may differ by hours."""

from datetime import datetime

from django.db import connection, models


class DatabaseClock(models.Func):
    """`clock_timestamp()`: the time at which PostgreSQL evaluates it, also within a statement."""

    function = "clock_timestamp"
    output_field = models.DateTimeField()


def database_now() -> datetime:
    """Raises django.db.Error."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (moment,) = cursor.fetchone()
    assert isinstance(moment, datetime)
    return moment
