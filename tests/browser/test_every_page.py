"""Every page that an operator reaches by links: in Korean, on a narrow screen, in dark colours, for screen readers."""

import re
from collections import Counter
from collections.abc import Iterator
from email import message_from_bytes, policy
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

from testkit.customer import Customer
from testkit.waiting import wait_until
from testkit.whole_run import Run
from tests.browser.conftest import send_poison

NARROW: ViewportSize = {"width": 390, "height": 844}
MAX_ENTRY_PX = 270
WIDE: ViewportSize = {"width": 1400, "height": 900}
FIRST_PAGES = ("/", "/admin/")
RUNBOOK = "/admin/docs/operations.md"
PAGES_PER_KIND = 2
MORE_THAN_A_PAGE = 51
"""Number of orders with which the lists of orders and events have a second page."""
NOT_PAGES = re.compile(r"^/(api|health|metrics)|/(jsi18n|logout|state|r)/")
LATIN_WORD = re.compile(r"(?<![\w.@/_:#-])[A-Za-z]*[a-z][A-Za-z]+(?![\w.@/_:-]*[\w*])")
"""Pattern of a word in Latin letters that is no constant and no part of an identifier, a path or an address."""
NAMES = {"Commerce", "Kafka", "PostgreSQL", "Django", "OpenAPI", "AsyncAPI", "English", "Prometheus", "PgBouncer"}
UNITS = {"KiB", "MiB"}
ACCOUNTS = {"admin", "demo", "mallory", "operator", "support", "Admin", "Demo"}
GROUPS = {"fulfilment", "payments", "sales", "shipping"}
"""Names of consumer groups. Korean pages may show them, although they look like words that lack a translation."""
ALLOWED_WORDS = NAMES | UNITS | ACCOUNTS | GROUPS | {"Accept", "en", "esc", "ko"}
TEXTS = """() => {
    const skipped = '.material-symbols-outlined, pre, code, script, style, noscript, [translate=no]';
    const texts = [document.title];
    const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (nodes.nextNode())
        if (!nodes.currentNode.parentElement.closest(skipped)) texts.push(nodes.currentNode.textContent);
    for (const name of ['title', 'placeholder', 'alt', 'aria-label'])
        for (const one of document.querySelectorAll(`[${name}]`))
            if (!one.closest(skipped) && !one.matches('.simplebar-content-wrapper')) texts.push(one.getAttribute(name));
    for (const one of document.querySelectorAll('input[type=submit]')) texts.push(one.value);
    return texts.map(text => text.trim());
}"""
"""A script for the browser that returns the texts of a page without code, icons and data (marked by `translate=no`)."""


@pytest.fixture(scope="module")
def shop(run: Run) -> list[str]:
    """Create orders and e-mails in every state, and dead letters, checkouts and commands in several states.

    Return the paths of the pages where the tests begin.
    """
    customer = Customer(run.site)
    customer.http.patch("/api/me", json={"email": "mina@example.com"}).raise_for_status()
    orders = [customer.place_order(price="1234567.00") for _ in range(MORE_THAN_A_PAGE)]
    customer.change(orders[0]["id"], "pay")
    customer.change(orders[1]["id"], "cancel")
    wait_until(lambda: len(customer.notifications()) == MORE_THAN_A_PAGE + 2)
    mailed = [one["id"] for one in customer.notifications()]
    customer.check_out(declined := customer.place_order()["id"], "tok_declined")
    wait_until(lambda: customer.fulfilment(declined)["state"] == "CANCELLED")
    customer.http.close()
    send_poison(run, '{"eventId":"5f0c7a3e-0000-4000-8000-000000000007","eventType":"ORDER_LOST","orderId":7}')
    send_poison(run, f'{{"eventType":"ORDER_PAID","orderId":{orders[0]["id"]}}}')
    send_poison(run, "no JSON")
    run.manage("consume_order_events", "--until-caught-up")
    run.manage("replay_dead_letters", "--limit", "1")
    run.manage("consume_order_events", "--until-caught-up")
    run.manage("shell", "-c", DISMISS_ONE)
    run.manage("send_emails", "--once")
    run.manage("shell", "-c", MAILS_IN_EVERY_STATE % mailed)
    run.manage("shell", "-c", COMMANDS_IN_EVERY_STATE)
    httpx.post(f"{run.site}/api/auth/token", json={"username": "mallory", "password": "a wrong guess"}, trust_env=False)
    emails = [f"/admin/notifications/emaildelivery/{pk}/change/" for pk in mailed[:4]]
    return [*FIRST_PAGES, *emails, opt_out_page(run)]


def opt_out_page(run: Run) -> str:
    """Return the path of the page that turns e-mails off, from the link in a mail that the run has written."""
    mail = next((run.log.parent / "var" / "mail").glob("*.eml"))
    link = str(message_from_bytes(mail.read_bytes(), policy=policy.default)["List-Unsubscribe"])
    return urlsplit(link.strip("<> ")).path


DISMISS_ONE = """
from events.consuming.dead_letters import dismiss
from events.models import DeadLetter
dismiss(letter_id=DeadLetter.objects.filter(state="open").latest("pk").pk)
"""
COMMANDS_IN_EVERY_STATE = """
from decimal import Decimal
from uuid import uuid4
from django.db.models.functions import Now
from payments.messages import charge_payment
from payments.models import PaymentCommand
for state, reply in (("pending", ""), ("done", "PAYMENT_CHARGED"), ("failed", "PAYMENT_FAILED")):
    message = charge_payment(command_id=(command_id := uuid4()), reference=7, amount=Decimal("5.00"),
        payment_token="tok_ok", source="/shop", sequence=1)
    PaymentCommand.objects.create(command_id=command_id, command_type=message.event_type, reference=7,
        value=message.value, state=state, finished_at=None if state == "pending" else Now(), reply_type=reply,
        last_error="POST /payments was answered 500", reason="It was not done in time")
"""
MAILS_IN_EVERY_STATE = """
from datetime import timedelta
from django.db.models.functions import Now
from notifications.models import EmailDelivery
emails = [EmailDelivery.objects.filter(pk=pk) for pk in %r]
error = "The mail server smtp.example:587 answered 550 5.1.1 The address does not exist: check it for typos, please"
assert emails[0].update(state="failed", attempts=7, finished_at=Now(), lease=None, last_error=error)
later = Now() + timedelta(hours=1)
assert emails[1].update(state="pending", attempts=0, finished_at=None, lease=None, content=None, due_at=later)
assert emails[2].update(state="cancelled", finished_at=Now(), lease=None, last_error="The user has turned e-mails off")
"""


def walk(page: Page, first_pages: list[str]) -> Iterator[str]:
    """Open `first_pages` and the pages that they link to, directly or not. Yield each address while `page` shows it.

    Of the linked pages of one kind, at most `PAGES_PER_KIND` are opened.
    """
    waiting = list(first_pages)
    seen = set(waiting)
    opened = Counter(map(_kind, waiting))
    while waiting:
        address = waiting.pop(0)
        page.goto(address)
        yield address
        for link in page.locator("a[href]").evaluate_all("links => links.map(link => link.href)"):
            target = urlsplit(urljoin(page.url, link))
            address = target._replace(scheme="", netloc="", fragment="").geturl()
            if target.netloc != urlsplit(page.url).netloc or NOT_PAGES.search(target.path) or address in seen:
                continue
            if opened[_kind(address)] < PAGES_PER_KIND:
                seen.add(address)
                opened[_kind(address)] += 1
                waiting.append(address)


def _kind(address: str) -> str:
    """Return the kind of a page: its address without numbers, and with a bare `?` in place of any query string."""
    path, mark, _ = address.partition("?")
    return re.sub(r"\d+", "N", path) + mark


def serious_findings(page: Page) -> list[str]:
    """Return the accessibility problems that axe-core finds on the page and calls serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def layout_findings(page: Page) -> list[str]:
    """Return a text for each fault of the layout: a page wider than the screen, or a list entry that is too high."""
    # Until the page's font is loaded, a busy browser shows another one, whose lines are higher.
    page.evaluate("document.fonts.ready.then(() => true)")
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    heights: list[int] = page.locator("#result_list tr.data-row").evaluate_all(
        "rows => rows.map(row => row.offsetHeight)"
    )
    high = [f"an entry is {height} px high" for height in heights if height > MAX_ENTRY_PX]
    return [*(["wider than the screen"] if wide else []), *high]


def findings_in_korean(page: Page) -> list[str]:
    words = {word for text in page.evaluate(TEXTS) for word in LATIN_WORD.findall(text)} - ALLOWED_WORDS
    return [*sorted(words), *layout_findings(page), *serious_findings(page)]


def findings_in_dark_colours(page: Page) -> list[str]:
    """Show the open page in dark colours on a wide screen, and return its `serious_findings`, such as low contrast.

    Afterwards the screen is narrow and the browser prefers light colours. The page keeps its class `dark`.
    """
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="dark")
    # Admin looks at the browser's preference only when a page is opened, and then sets this class.
    page.evaluate("document.documentElement.classList.add('dark')")
    findings = serious_findings(page)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(NARROW)
    return findings


@pytest.mark.parametrize("locale", ["ko-KR"])
def test_every_page_is_korean_and_accessible(shop: list[str], page: Page) -> None:
    page.set_viewport_size(NARROW)
    findings: dict[str, list[str]] = {}
    for address in walk(page, shop):
        if address == RUNBOOK:
            expect(page.locator("article[lang=ko]:not([translate])")).to_contain_text("지연이 커질 때")
        findings[address] = findings_in_korean(page) + findings_in_dark_colours(page)
    assert len(findings) > 50
    assert RUNBOOK in findings
    assert {address: found for address, found in findings.items() if found} == {}


def test_the_login_is_korean_on_a_narrow_screen(run: Run, page: Page) -> None:
    browser = page.context.browser
    assert browser
    stranger = browser.new_page(base_url=run.site, locale="ko-KR", viewport=NARROW)
    stranger.goto("/admin/login/")
    assert findings_in_korean(stranger) == []
    stranger.fill("[name=username]", "mallory")
    stranger.fill("[name=password]", "a wrong guess")
    stranger.click("[type=submit]")
    expect(stranger.locator("form")).to_be_visible()
    assert findings_in_korean(stranger) == []
    stranger.close()
