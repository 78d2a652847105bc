import pytest
from django.db import connection

from testkit.waiting import wait_until


@pytest.mark.django_db(transaction=True)
class TestAConnectionBeforeItIsUsedAgain:
    def test_it_is_usable_while_the_server_holds_it(self) -> None:
        connection.ensure_connection()
        assert connection.is_usable()

    def test_it_is_not_after_the_server_ended_it(self) -> None:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (backend,) = cursor.fetchone()
        with connection.copy().cursor() as other:
            other.execute("SELECT pg_terminate_backend(%s)", [backend])
        wait_until(lambda: not connection.is_usable(), timeout=5)
        connection.close()

    def test_it_is_not_after_it_was_closed_here(self) -> None:
        connection.ensure_connection()
        connection.connection.close()
        assert not connection.is_usable()
        connection.close()
