"""Checkouts in a browser: one completes, one is declined, and one is stuck until an operator resolves it."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from testkit.customer import Customer
from testkit.waiting import wait_until
from testkit.whole_run import Run
from tests.browser.conftest import ColorScheme, picture

AT_REST_WITHIN_S = 30
TIMEOUT_MS = 30_000
LIST = "/admin/fulfilment/fulfilment/"


class Checkouts(NamedTuple):
    """A customer, and the ids of three orders. The name of each id says how the order's checkout ends."""

    customer: Customer
    completed: int
    declined: int
    stuck: int


@pytest.fixture(scope="module")
def checkouts(run: Run) -> Iterator[Checkouts]:
    customer = Customer(run.site)
    tokens = ("tok_ok", "tok_declined", "tok_no_refund")
    orders = [customer.place_order()["id"] for _ in tokens]
    for order_id, token in zip(orders, tokens, strict=True):
        customer.check_out(order_id, token)
    made = Checkouts(customer, *orders)
    expect_state(made, made.stuck, "COMPLETED")
    customer.change(made.stuck, "cancel")
    expect_state(made, made.stuck, "STUCK")
    yield made
    customer.http.close()


def expect_state(checkouts: Checkouts, order_id: int, state: str) -> None:
    wait_until(lambda: checkouts.customer.fulfilment(order_id)["state"] == state, timeout=AT_REST_WITHIN_S)


def steps(page: Page) -> list[tuple[str | None, str | None]]:
    """Return (step, state) of each step in the timeline of the order that the page shows."""
    shown = page.locator("[data-step]").all()
    return [(one.get_attribute("data-step"), one.get_attribute("data-state")) for one in shown]


def test_a_completed_checkout_leads_to_its_commands(checkouts: Checkouts, page: Page) -> None:
    expect_state(checkouts, checkouts.completed, "COMPLETED")
    page.goto(f"/admin/orders/order/{checkouts.completed}/change/")
    expect(page.locator("[data-fulfilment=COMPLETED]")).to_be_visible(timeout=TIMEOUT_MS)
    assert steps(page) == [("PAYMENT", "DONE"), ("SHIPMENT", "DONE")]
    page.click("[data-step=SHIPMENT] a")
    page.wait_for_url("**/admin/shipping/shippingcommand/?q=*")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.click("#result_list tbody tr a:has-text('BOOK_SHIPMENT')")
    expect(page.locator("text=SHIPMENT_BOOKED")).to_be_visible(timeout=TIMEOUT_MS)


def test_a_declined_checkout_says_why(checkouts: Checkouts, page: Page) -> None:
    expect_state(checkouts, checkouts.declined, "CANCELLED")
    page.goto(f"/admin/orders/order/{checkouts.declined}/change/")
    assert steps(page) == [("PAYMENT", "REFUSED")]
    expect(page.locator("[data-step=PAYMENT] .reason")).to_have_text("The card was declined")
    page.click("[data-fulfilment] h3 a")
    page.wait_for_url(f"**{LIST}{checkouts.declined}/change/")
    # An operator can do nothing about a declined checkout.
    for name in ("Retry step", "Undo now", "Mark as resolved"):
        expect(page.get_by_role("link", name=name)).to_have_count(0)


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_pages_of_fulfilments_are_accessible(checkouts: Checkouts, page: Page, color_scheme: ColorScheme) -> None:
    for place in (LIST, f"{LIST}{checkouts.stuck}/change/", f"/admin/orders/order/{checkouts.completed}/change/"):
        page.goto(place)
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == [], place


@pytest.mark.parametrize("locale", ["ko-KR"])
def test_a_stuck_fulfilment_is_shown_in_korean(checkouts: Checkouts, page: Page, locale: str) -> None:
    page.goto(f"{LIST}{checkouts.stuck}/change/")
    expect(page.get_by_role("link", name="해결됨으로 표시")).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.locator("main, #content").first).to_contain_text("멈춤: 환불")
    expect(page.locator("main, #content").first).to_contain_text("이행 단계")
    picture(page, "fulfilment-ko")


def test_a_stuck_refund_is_resolved_with_the_keyboard(checkouts: Checkouts, page: Page) -> None:
    page.goto(f"{LIST}?state__exact=STUCK_REFUND")
    row = page.locator("#result_list").get_by_role("link", name=str(checkouts.stuck), exact=True)
    row.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{LIST}{checkouts.stuck}/change/**")
    picture(page, "fulfilment")
    page.get_by_role("link", name="Retry step").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Retry step").focus()
    page.keyboard.press("Enter")
    expect(page.locator("text=1 step is tried again.")).to_be_visible(timeout=TIMEOUT_MS)
    # The provider refuses the refund once more.
    expect_state(checkouts, checkouts.stuck, "STUCK")
    page.reload()
    page.get_by_role("link", name="Mark as resolved").focus()
    page.keyboard.press("Enter")
    expect(page.locator("text=Otherwise money or goods are lost.")).to_be_visible(timeout=TIMEOUT_MS)
    page.get_by_role("button", name="Mark as resolved").focus()
    page.keyboard.press("Enter")
    expect(page.locator("text=1 step is marked as resolved.")).to_be_visible(timeout=TIMEOUT_MS)
    expect_state(checkouts, checkouts.stuck, "CANCELLED")
    page.click(f"a[href='{LIST}{checkouts.stuck}/history/']")
    expect(page.locator("text=Mark as resolved. CANCELLED")).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.locator("text=Retry step. REFUNDING")).to_be_visible(timeout=TIMEOUT_MS)
