"""Every page that an operator can reach by links, as a Korean reader, on a narrow screen, and with a screen reader."""

import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from testkit.customer import Customer
from testkit.waiting import wait_until
from testkit.whole_run import Run
from tests.browser.conftest import send_poison

NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1400, "height": 900}
START = ("/", "/admin/login/", "/admin/", "/admin/no-such-page/")
PAGES_PER_KIND = 3
NOT_PAGES = re.compile(r"/admin/(jsi18n|logout|pipeline/state)|/admin/r/|/health|/metrics|/api/")
LATIN_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]+")
ALLOWED_LATIN = frozenset(
    """
    Commerce Kafka Kubernetes PostgreSQL Prometheus Django Python JSON API SMTP IP URL UTC GMT ID id KST English
    """.split()
)
"""Names and terms that a Korean operator reads in Latin letters."""


@pytest.fixture(scope="module")
def shop(run: Run) -> Run:
    """Return a run with orders in every state, dead letters in every state, and a failed login."""
    orders = []
    for customer in (Customer(run.site), Customer(run.site)):
        orders = [customer.place_order(price="1234567.00") for _ in range(3)]
        customer.change(orders[0]["id"], "pay")
        customer.change(orders[1]["id"], "cancel")
        wait_until(lambda: len(customer.notifications()) == 5)
        customer.http.close()
    send_poison(run, '{"eventId":"5f0c7a3e-0000-4000-8000-000000000007","eventType":"ORDER_LOST","orderId":7}')
    send_poison(run, '{"eventType":"ORDER_PAID","orderId":%d}' % orders[0]["id"])
    send_poison(run, "no JSON")
    run.manage("consume_order_events", "--until-caught-up")
    run.manage("replay_dead_letters", "--limit", "1")
    run.manage("relay_outbox", "--once")
    run.manage("consume_order_events", "--until-caught-up")
    run.manage("shell", "-c", DISMISS_ONE)
    httpx.post(f"{run.site}/api/auth/token", json={"username": "mallory", "password": "a wrong guess"})
    return run


DISMISS_ONE = """
from events.consuming.dead_letters import dismiss
from events.models import DeadLetter
dismiss(letter_id=DeadLetter.objects.latest("pk").pk)
"""


def walk(page: Page) -> Iterator[str]:
    """Open some pages of each kind that links lead to, and yield their addresses."""
    waiting = list(START)
    seen = Counter(map(_kind, waiting))
    while waiting:
        address = waiting.pop(0)
        page.goto(address)
        page.wait_for_load_state("load")
        yield address
        for link in page.locator("a[href]").evaluate_all("links => links.map(link => link.href)"):
            target = urlsplit(urljoin(page.url, link))
            if target.netloc != urlsplit(page.url).netloc or NOT_PAGES.search(target.path):
                continue
            address = target._replace(scheme="", netloc="", fragment="").geturl()
            if address not in waiting and seen[_kind(address)] < PAGES_PER_KIND:
                seen[_kind(address)] += 1
                waiting.append(address)


def _kind(address: str) -> str:
    """Return the address without numbers, and with a bare `?` for any query."""
    path, mark, _ = address.partition("?")
    return re.sub(r"\d+", "N", path) + mark
