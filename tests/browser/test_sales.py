"""The page Sales in a browser: it updates itself, marks anomalies, and works by keyboard, in dark mode, in Korean."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from testkit.customer import Customer
from testkit.waiting import wait_until
from testkit.whole_run import Run
from tests.browser.conftest import ColorScheme, picture

TIMEOUT_MS = 15_000
SHOP = """
import math
import random
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4
from django.utils import timezone
from sales.anomalies.models import SalesAnomaly
from sales.models import SalesBucket
from sales.anomalies.tests.simulation import HOURS, WEEKDAYS

random.seed(7)
now = timezone.now().replace(second=0, microsecond=0)
hour = now.replace(minute=0)
surge = hour - timedelta(hours=9)
silence = hour - timedelta(hours=21)
rows = []
for minutes in range(40 * 24 * 60, 3, -1):
    minute = now - timedelta(minutes=minutes)
    local = minute + timedelta(hours=9)
    mean = HOURS[local.hour] * WEEKDAYS[local.weekday()] / 8
    if surge <= minute < surge + timedelta(hours=1):
        mean *= 3.5
    if silence <= minute < silence + timedelta(hours=1):
        continue
    created = sum(random.random() < mean / 20 for _ in range(20))
    paid = sum(random.random() < 0.86 for _ in range(created))
    cancelled = sum(random.random() < 0.07 for _ in range(created))
    for event_type, count in (("ORDER_CREATED", created), ("ORDER_PAID", paid), ("ORDER_CANCELLED", cancelled)):
        if count:
            amount = sum(Decimal(round(random.lognormvariate(10.3, 0.7), -2)) for _ in range(count))
            key = {"generation": 0, "minute": minute, "event_type": event_type, "partition": 9}
            rows.append(SalesBucket(**key, count=count, amount=amount))
SalesBucket.objects.bulk_create(rows, batch_size=5000)
def sold(start, field):
    end = start + timedelta(hours=1)
    return sum(getattr(row, field) for row in rows if row.event_type == "ORDER_CREATED" and start <= row.minute < end)
day = timedelta(days=1)
for rule, start, observed, usual in (
    ("SURGE", surge, sold(surge, "amount"), sold(surge - day, "amount")),
    ("SILENCE", silence, 0, sold(silence - day, "count")),
):
    SalesAnomaly.objects.create(rule=rule, started_at=start, ended_at=start + timedelta(hours=1), observed=observed,
        usual=usual, detected_at=now, event_id=uuid4())
"""
"""A script that fills the sums of forty days, and records a surge and a silence in the last day as anomalies."""
EMPTY = """
from sales.models import SalesAnomaly, SalesBucket
SalesBucket.objects.filter(partition=9).delete()
SalesAnomaly.objects.all().delete()
"""


@pytest.fixture
def timezone_id() -> str:
    return "Asia/Seoul"


@pytest.fixture(scope="module")
def shop(run: Run) -> Run:
    run.manage("shell", "-c", EMPTY)
    run.manage("shell", "-c", SHOP)
    return run


def is_drawn(page: Page, canvas: str) -> bool:
    """Return whether the chart has pixels of more than a few colours."""
    colours = page.locator(canvas).evaluate(
        "canvas => new Set(new Uint32Array(canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"
    )
    return bool(colours > 20)


def open_page(page: Page, interval: str = "hour") -> None:
    page.goto(f"/admin/sales/?interval={interval}")
    expect(page.locator("[data-figure=at] time")).to_be_visible(timeout=TIMEOUT_MS)


def test_new_orders_move_the_page_without_a_reload(run: Run, page: Page) -> None:
    open_page(page, "minute")
    orders = page.locator("[data-card=created] [data-value=orders]")
    before = orders.inner_text()
    customer = Customer(run.site)
    for _ in range(3):
        customer.place_order(price="1234567.00")
    customer.http.close()
    wait_until(lambda: orders.inner_text() != before)
    expect(page.locator("[data-table] tr")).to_have_count(60)
    expect(page.locator('[data-trouble="site"]')).to_be_hidden()


def test_anomalies_are_marked_and_lead_to_their_rows(shop: Run, page: Page) -> None:
    page.set_viewport_size({"width": 1400, "height": 1340})
    open_page(page)
    expect(page.locator(".sales-anomalies li")).to_have_count(2)
    expect(page.locator(".sales-anomalies li").first).to_contain_text("Surge")
    expect(page.locator(".sales-anomalies time").first).to_contain_text("KST")
    assert is_drawn(page, "#sales-amounts")
    assert is_drawn(page, "#sales-counts")
    picture(page, "sales")
    page.locator(".sales-anomalies a").first.click()
    page.wait_for_url("**/admin/sales/salesanomaly/*/change/")
    expect(page.locator("main, #content").first).to_contain_text("Surge")


@pytest.mark.parametrize("interval", ["minute", "hour", "day"])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_page_has_no_serious_accessibility_finding(
    shop: Run, page: Page, interval: str, color_scheme: ColorScheme
) -> None:
    open_page(page, interval)
    picture(page, f"sales-{interval}-{color_scheme}")
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_keyboard_reaches_the_intervals_and_the_table(shop: Run, page: Page) -> None:
    open_page(page)
    page.locator(".sales-units a").nth(1).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**interval=day")
    expect(page.locator(".sales-units [aria-current=page]")).to_have_text("Days")
    page.locator(".sales-table summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-table] tr").first).to_be_visible(timeout=TIMEOUT_MS)


@pytest.mark.parametrize("locale", ["ko-KR"])
def test_page_is_in_korean(shop: Run, page: Page, locale: str) -> None:
    open_page(page)
    expect(page.locator("h1, header").first).to_be_visible()
    expect(page.locator(".sales-anomalies li").first).to_contain_text("매출 급증")
    expect(page.locator("[data-card=created]")).to_contain_text("어제 이 시각까지")
    picture(page, "sales-ko")


def test_page_fits_a_narrow_screen(shop: Run, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    picture(page, "sales-narrow")


def test_page_without_sales_says_so(run: Run, page: Page) -> None:
    run.manage("shell", "-c", EMPTY)
    open_page(page, "day")
    expect(page.locator("[data-anomalies=none]")).to_be_visible()
    picture(page, "sales-empty")
