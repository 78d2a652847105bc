"""Measure how long the first page of a list takes, from a table of a million rows and from one of a thousand."""

import time
from collections.abc import Iterator
from statistics import median

from benchmarks import database
from benchmarks.comparison import Pair
from benchmarks.load import Connection, request
from benchmarks.servers import Servers, running
from testkit.customer import Customer

ROUNDS = 5
REQUESTS = 200
FEW_ROWS, MANY_ROWS = 1_000, 1_000_000
USERS = 10
LISTS = {"orders-list": "/api/orders", "notifications-list": "/api/notifications"}

FILL = """
    INSERT INTO auth_user
        (password, is_superuser, username, first_name, last_name, email, is_staff, is_active, date_joined)
    SELECT '', false, 'user-' || number, '', '', '', false, true, now() FROM generate_series(2, %(users)s) AS number;

    INSERT INTO orders_order (user_id, total_amount, status, created_at, last_sequence)
    SELECT (SELECT min(id) FROM auth_user) + number %% %(users)s, 200, 'PENDING', now(), 1
    FROM generate_series(1, %(rows)s) AS number;

    INSERT INTO orders_orderitem (order_id, product_id, quantity, price)
    SELECT id, 1, 2, 100 FROM orders_order;

    INSERT INTO notifications_notification (user_id, order_id, event_id, type, message, created_at)
    SELECT user_id, id, gen_random_uuid(), 'ORDER_CREATED', '주문이 생성되었습니다. 주문번호: ' || id, now()
    FROM orders_order;
    """


def measure(servers: Servers, wanted: set[str]) -> Iterator[tuple[str, Pair]]:
    urls = {rows: servers.database(f"bench-{rows}") for rows in (FEW_ROWS, MANY_ROWS)}
    with (
        running(servers.web(DATABASE_URL=urls[FEW_ROWS])) as few_web,
        running(servers.web(DATABASE_URL=urls[MANY_ROWS])) as many_web,
    ):
        few, many = Shop(few_web.url), Shop(many_web.url)
        for rows, url in urls.items():
            database.execute(FILL, url, rows=rows, users=USERS)
            database.execute("VACUUM ANALYZE", url)
        for _ in range(ROUNDS):
            for name, path in LISTS.items():
                if name in wanted:
                    (ours, queries), (beside, queries_of_few) = many.measure(path), few.measure(path)
                    if queries != queries_of_few:
                        raise RuntimeError(
                            f"{path} takes {queries} queries of {MANY_ROWS} rows, {queries_of_few} of {FEW_ROWS}"
                        )
                    yield name, Pair(ours, beside)


class Shop:
    """A running web server with a database, and one customer who asks it for lists.

    The SQL script `FILL` gives a tenth of the orders and notifications to this customer.
    """

    def __init__(self, site: str) -> None:
        self._site = site
        self._customer = Customer(site)

    def measure(self, path: str) -> tuple[float, int]:
        """Return the median time of an answer in milliseconds, and the number of its SQL queries."""
        connection = Connection(self._site)
        get = request("GET", path, token=self._customer.token)
        durations = []
        for _ in range(REQUESTS):
            started_at = time.perf_counter()
            connection.ask(get)
            durations.append(time.perf_counter() - started_at)
        queries = int(connection.header("X-Queries"))
        connection.close()
        return median(durations) * 1000, queries
