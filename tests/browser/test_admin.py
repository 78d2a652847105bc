"""Admin's pages about events in a browser: timelines, dead letters and the pipeline."""

import re
from datetime import datetime
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from events.subscriptions import subscriptions
from orders.events import ORDER_EVENTS
from testkit.customer import Customer
from testkit.waiting import wait_until
from testkit.whole_run import Run
from tests.browser.conftest import picture, send_poison

TIMEOUT_MS = 30_000
GROUPS = len(subscriptions())
"""Number of groups. The pipeline page has a row for each group and partition."""
READERS = len(subscriptions(ORDER_EVENTS.name))
"""Number of groups that read each event of an order. The page adds up their lags."""


def test_timeline_shows_the_notifications_of_an_api_order(run: Run, page: Page) -> None:
    customer = Customer(run.site)
    order = customer.place_order()
    customer.change(order["id"], "pay")
    wait_until(lambda: len(customer.notifications(order["id"])) == 2)
    customer.http.close()
    page.goto(f"/admin/orders/order/{order['id']}/change/")
    expect(page.locator(".timeline .event[data-state=NOTIFIED]")).to_have_count(2)
    picture(page, "order")
    page.click(".timeline a:has-text('notification') >> nth=0")
    page.click(f".related a:has-text('order {order['id']}')")
    page.click("text=Cancel order")
    picture(page, "question")
    page.click("button:has-text('Cancel this order')")
    expect(page.locator("text=1 order was cancelled.")).to_be_visible()
    wait_until(lambda: page.reload() and page.locator(".timeline .event[data-state=NOTIFIED]").count() == 3)
    page.goto("/admin/orders/order/")
    picture(page, "orders")


def test_a_dead_letter_is_shown_replayed_and_dismissed(run: Run, page: Page) -> None:
    send_poison(run, '{"eventId":"5f0c7a3e-0000-4000-8000-000000000007","eventType":"ORDER_LOST","orderId":7}')
    page.goto("/admin/events/deadletter/")
    letter = page.locator("#result_list a:has-text('order-events[')").first
    wait_until(lambda: page.reload() and letter.count())
    picture(page, "dead-letters")
    letter.click()
    expect(page.locator("pre.message >> nth=0")).to_contain_text('"eventType": "ORDER_LOST"')
    picture(page, "dead-letter")
    page.click("a:has-text('Replay')")
    page.click("button:has-text('Replay')")
    expect(page.locator("text=Replayed 1 dead letter.")).to_be_visible()
    # The replay fails again, so the letter is open again and shows the replay.
    expect(page.locator(".related a:has-text('replay 1')")).to_be_visible()
    attempt = page.locator(".attempts li:has-text('Replay 1')")
    wait_until(lambda: page.reload() and "failed" in attempt.inner_text())
    expect(attempt).to_contain_text("Poison: Not an order event")
    picture(page, "dead-letter-attempts")
    page.click("a:has-text('Dismiss')")
    page.click("button:has-text('Dismiss')")
    expect(page.locator("text=Dismissed 1 dead letter.")).to_be_visible()


def test_the_pipeline_moves_without_a_reload(run: Run, page: Page) -> None:
    page.goto("/admin/pipeline/")
    expect(page.locator("#pipeline-partitions tr")).to_have_count(3 * GROUPS, timeout=TIMEOUT_MS)
    before = _end_offsets(page)
    customer = Customer(run.site)
    for _ in range(5):
        customer.place_order()
    customer.http.close()
    wait_until(lambda: _end_offsets(page) >= before + 5)
    expect(page.locator("[data-figure=lag]")).to_have_text("0", timeout=TIMEOUT_MS)
    picture(page, "pipeline")


def test_an_outage_is_told_and_leads_to_the_runbook(run: Run, page: Page) -> None:
    customer = Customer(run.site)
    page.goto("/admin/pipeline/")
    # A partition that a group has never read has no lag.
    offsets = page.locator("#pipeline-partitions tr", has_text="order-events").locator("td:nth-child(4)")
    placed: list[int] = []

    def every_partition_is_read() -> bool:
        placed.append(customer.place_order()["id"])
        return offsets.count() > 0 and "–" not in offsets.all_inner_texts()

    wait_until(every_partition_is_read)
    wait_until(lambda: len(customer.notifications()) == len(placed))
    page.goto("/")
    switch = page.get_by_role("switch", name="Consumer")
    switch.click()
    expect(switch).to_have_text("Stopped", timeout=TIMEOUT_MS)
    for _ in range(5):
        customer.place_order()
    page.goto("/admin/")
    expect(page.locator("[data-verdict]")).to_contain_text("Nothing was handled for", timeout=TIMEOUT_MS)
    expect(page.locator("[data-verdict]")).to_have_attribute("data-level", "warning")
    expect(page.locator("[data-card=lag]")).to_have_attribute("data-level", "warning")
    page.goto("/admin/pipeline/")
    expect(page.locator("[data-text=lag]")).to_contain_text(f"Highest: {5 * READERS}", timeout=TIMEOUT_MS)
    picture(page, "outage")
    page.click("[data-runbook]")
    expect(page.locator("h2#lag-grows")).to_be_in_viewport()
    page.goto("/")
    switch.click()
    wait_until(lambda: len(customer.notifications()) == len(placed) + 5)
    customer.http.close()
    page.goto("/admin/pipeline/")
    expect(page.locator("[data-card=lag]")).to_have_attribute("data-level", "ok", timeout=TIMEOUT_MS)
    expect(page.locator("[data-text=lag]")).to_contain_text(f"Highest: {5 * READERS}")


def test_the_keyboard_reaches_filters_and_menu(run: Run, page: Page) -> None:
    page.goto("/admin/orders/order/")
    page.get_by_role("button", name="Filters").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#changelist-filter")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#changelist-filter")).to_be_hidden()
    page.get_by_role("button", name="admin").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("link", name="Change password")).to_be_visible()


def test_admin_is_korean_where_it_is_chosen(run: Run, page: Page) -> None:
    page.goto("/admin/pipeline/")
    page.locator("form[action='/admin/i18n/setlang/'] button:has-text('한국어')").dispatch_event("click")
    expect(page.locator("text=분당 이벤트")).to_be_visible()
    picture(page, "korean")


@pytest.mark.parametrize("timezone_id", ["Asia/Seoul"])
def test_times_are_those_of_the_browsers_zone(run: Run, page: Page) -> None:
    customer = Customer(run.site)
    order = customer.place_order()
    customer.http.close()
    there = datetime.fromisoformat(order["createdAt"]).astimezone(ZoneInfo("Asia/Seoul"))
    page.goto("/admin/orders/order/")
    expect(page.locator(f"#result_list tr:has-text('{there:%Y-%m-%d %H:%M:%S} KST')").first).to_be_visible()
    picture(page, "orders-seoul")
    page.goto(f"/admin/orders/order/{order['id']}/change/")
    expect(page.locator(".timeline time").first).to_have_text(f"{there:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " KST")
    picture(page, "order-seoul")
    page.goto("/admin/pipeline/")
    as_of = page.locator("[data-figure=at] time")
    expect(as_of).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d KST$"), timeout=TIMEOUT_MS)
    expect(as_of).to_have_attribute("title", re.compile(r"\.\d{3} UTC$"))
    expect(page.locator("body")).not_to_contain_text("GMT")


HOSTILE = """
from email.message import EmailMessage
from notifications.models import EmailDelivery
message = EmailMessage()
message.set_content("plain")
foreign = "http://mail.invalid"
message.add_alternative(
    f"<!doctype html><html><body style='margin: 0'><script>top.hostile = 1</script><img src='{foreign}/a.png'>"
    f"<link rel=stylesheet href='{foreign}/a.css'><iframe src='{foreign}/frame'></iframe><p>The mail</p>"
    f"<a href='{foreign}/link' target=_top style='position: fixed; inset: 0'>x</a></body></html>", subtype="html"
)
assert EmailDelivery.objects.filter(pk=%d).update(content=message.as_bytes())
"""
"""A program for the Django shell that replaces the stored message of an e-mail delivery by a hostile one. The caller
fills in the delivery's id for `%d`."""


def test_a_hostile_mail_loads_and_runs_nothing(run: Run, page: Page) -> None:
    customer = Customer(run.site)
    customer.http.patch("/api/me", json={"email": "mina@example.com"}).raise_for_status()
    order = customer.place_order()
    wait_until(lambda: customer.notifications(order["id"]))
    (notification,) = customer.notifications(order["id"])
    customer.http.close()
    address = f"/admin/notifications/emaildelivery/{notification['id']}/change/"
    page.goto(address)
    wait_until(lambda: page.reload() and page.get_by_text("Done", exact=True).count())
    expect(page.frame_locator("iframe.mail").locator("body")).to_contain_text("주문이 생성되었습니다.")
    run.manage("shell", "-c", HOSTILE % notification["id"])
    # Another page, because Chromium reports all that it refuses as an error.
    browser = page.context.browser
    assert browser
    looking = browser.new_page(base_url=run.site, storage_state=page.context.storage_state())
    requested: list[str] = []
    looking.on("request", lambda request: requested.append(request.url))
    looking.goto(address)
    frame = looking.frame_locator("iframe.mail")
    expect(frame.locator("p")).to_have_text("The mail")
    frame.locator("a").click()
    looking.wait_for_load_state("networkidle")
    assert looking.evaluate("window.hostile") is None
    assert urlsplit(looking.url).path == address
    assert [url for url in requested if not url.startswith((run.site, "data:"))] == []
    assert len(looking.context.pages) == 1
    looking.close()


def _end_offsets(page: Page) -> int:
    cells = page.locator("#pipeline-partitions tr td:nth-child(5)").all_inner_texts()
    page.wait_for_timeout(100)
    return sum(int(cell) for cell in cells)
