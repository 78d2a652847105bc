"""The start page in a browser: it shows how far events have come, and stops and starts the broker and the consumer."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from testkit.whole_run import Run
from tests.browser.conftest import picture

TIMEOUT_MS = 30_000
ARRIVED = "Everything has arrived. Orders: {n}, notifications: {n}, doubled: 0, lost: 0."


@pytest.fixture
def start(run: Run, page: Page) -> Iterator[Page]:
    """Open the start page with broker and consumer running. After the test, start either of them that is stopped."""
    page.goto("/")
    for target in ("broker", "consumer"):
        expect(switch(page, target)).to_have_text("Running", timeout=TIMEOUT_MS)
    yield page
    for target in ("broker", "consumer"):
        if switch(page, target).get_attribute("aria-checked") == "false":
            switch(page, target).click()
        expect(switch(page, target)).to_have_attribute("aria-checked", "true")


def switch(page: Page, target: str) -> Locator:
    return page.locator(f"[data-target={target}]")


def place(page: Page, orders: int) -> None:
    """Place orders by clicks on the page. After each click, wait until the page shows the order's response 201."""
    rows = page.locator(".journeys tbody tr")
    before = rows.count()
    for placed in range(1, orders + 1):
        page.get_by_role("button", name="Place an order").click()
        expect(rows).to_have_count(before + placed)
        expect(rows.first.locator("td").first).to_contain_text(re.compile(r"201 in \d+ ms"))


def expect_count(page: Page, name: str, value: str) -> None:
    expect(page.locator(f"[data-count={name}]").first).to_have_text(value, timeout=TIMEOUT_MS)


def expect_all_arrived(page: Page, orders: int) -> None:
    expect(page.locator("#say")).to_have_text(ARRIVED.format(n=orders), timeout=TIMEOUT_MS)
    counts = {"orders": orders, "published": orders, "notifications": orders}
    for name, value in (counts | {"pending": 0, "lag": 0, "doubled": 0, "lost": 0}).items():
        expect_count(page, name, str(value))
    for row in page.locator(".journeys tbody tr").all():
        expect(row.locator("td.done")).to_have_count(4)


def test_an_order_is_placed_and_its_event_arrives(start: Page) -> None:
    place(start, 1)
    expect_all_arrived(start, 1)
    published = start.locator(".journeys tbody tr td").nth(2)
    expect(published).to_contain_text(re.compile(r"\d+ ms(fast path|relay), partition [0-2], offset \d+"))


def test_several_orders_are_under_way_at_once(start: Page) -> None:
    start.get_by_role("button", name="Place 10").click()
    expect_all_arrived(start, 10)


def test_orders_placed_without_broker_arrive_once_it_is_back(start: Page) -> None:
    place(start, 2)
    expect_all_arrived(start, 2)
    switch(start, "broker").click()
    expect(switch(start, "broker")).to_have_text("Stopped")
    place(start, 3)
    expect(start.locator("#say")).to_have_text(
        "The broker is stopped. Orders are answered all the same. Events waiting in the outbox: 3.", timeout=TIMEOUT_MS
    )
    expect(start.locator(".journeys td.wait", has_text="waits for the broker")).to_have_count(3)
    expect_count(start, "pending", "3")
    expect_count(start, "lag", "–")
    picture(start, "start")
    switch(start, "broker").click()
    expect_all_arrived(start, 5)


def test_orders_placed_without_consumer_arrive_once_it_is_back(start: Page) -> None:
    switch(start, "consumer").click()
    expect(switch(start, "consumer")).to_have_text("Stopped", timeout=TIMEOUT_MS)
    place(start, 3)
    expect(start.locator("#say")).to_have_text(
        "The consumer is stopped. Orders are answered all the same. Events waiting on the broker: 3.",
        timeout=TIMEOUT_MS,
    )
    expect(start.locator(".journeys td.wait", has_text="waits for the consumer")).to_have_count(3)
    expect_count(start, "lag", "3")
    switch(start, "consumer").click()
    expect_all_arrived(start, 3)


def test_a_page_that_is_opened_anew_shows_what_is_stopped(start: Page) -> None:
    switch(start, "consumer").click()
    switch(start, "broker").click()
    start.goto("about:blank")
    start.goto("/")
    for target in ("broker", "consumer"):
        expect(switch(start, target)).to_have_text("Stopped", timeout=TIMEOUT_MS)
        expect(switch(start, target)).to_have_attribute("aria-checked", "false")


def test_the_keyboard_places_orders_and_switches(start: Page) -> None:
    start.get_by_role("button", name="Place an order").focus()
    start.keyboard.press("Enter")
    expect_all_arrived(start, 1)
    start.get_by_role("switch", name="Broker").focus()
    start.keyboard.press("Space")
    expect(start.get_by_role("switch", name="Broker", checked=False)).to_have_text("Stopped")


def test_the_page_speaks_korean(run: Run, start: Page) -> None:
    browser = start.context.browser
    assert browser
    korean = browser.new_page(base_url=run.site, locale="ko-KR")
    korean.goto("/")
    korean.get_by_role("button", name="주문하기").click()
    expect(korean.locator("#say")).to_have_text(
        "모두 도착했습니다. 주문 1건, 알림 1건, 중복 0건, 유실 0건.", timeout=TIMEOUT_MS
    )
    korean.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1400])
def test_the_page_fits_every_screen(start: Page, width: int, scheme: str) -> None:
    start.set_viewport_size({"width": width, "height": 900})
    start.emulate_media(color_scheme=scheme)
    place(start, 1)
    expect_all_arrived(start, 1)
    assert start.evaluate("document.documentElement.scrollWidth") == width
    picture(start, f"start-{width}-{scheme}")
