"""The database's clock, which measures the age of outbox rows: the clocks of processes may differ by hours."""

from datetime import datetime

from django.db import connection, models


class DatabaseClock(models.Func):
    """`clock_timestamp()`: the time at which PostgreSQL evaluates the expression. It advances within a transaction."""

    function = "clock_timestamp"
    output_field = models.DateTimeField()


def database_now() -> datetime:
    """Return the current time of the database's clock. Raises django.db.Error."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (moment,) = cursor.fetchone()
    assert isinstance(moment, datetime)
    return moment
