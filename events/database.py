"""What the long-running commands ask of the database before they start."""

from django.core.management import CommandError
from django.db import Error, connection


def require_database() -> None:
    """Raises CommandError, one clear line, where the database does not answer. Later outages are waited out instead."""
    try:
        connection.ensure_connection()
    except Error as error:
        raise CommandError(f"The database does not answer, check DATABASE_URL: {str(error).strip()}") from error
