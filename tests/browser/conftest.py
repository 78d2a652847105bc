import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, sync_playwright

from commerce.devserver.embedded_postgres import data_home
from testkit.processes import CHECKOUT, free_port
from testkit.whole_run import Run, copy_checkout

SCREENSHOTS = CHECKOUT / "var" / "screenshots"
ColorScheme = Literal["dark", "light"]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    checkout = tmp_path_factory.mktemp("checkout")
    copy_checkout(checkout)
    # A refund that the provider refuses is stuck after seconds.
    run = Run(checkout, free_port(), FULFILMENT_UNDO_PAUSE="1s")
    try:
        assert run.says(f"READY {run.site}\n"), run.log.read_text()
        yield run
    finally:
        run.stop()
        if data_home(checkout) != checkout / "var":
            shutil.rmtree(data_home(checkout))


@pytest.fixture
def timezone_id() -> str | None:
    """Return the time zone of the browser; None stands for the machine's. A test may override this fixture."""
    return None


@pytest.fixture
def locale() -> str:
    """Return the browser's language. A test that needs another language overrides this fixture."""
    return "en-US"


@pytest.fixture
def color_scheme() -> ColorScheme:
    """Return the colours that the browser prefers. A test overrides this fixture for other ones."""
    return "light"


@pytest.fixture
def page(run: Run, timezone_id: str | None, locale: str, color_scheme: ColorScheme) -> Iterator[Page]:
    """Return a page that is logged in to admin.

    After the test, fail if the browser has reported an error, a warning, a failed request, or a status of 400 or more.
    Aborted requests do not count.
    """
    # Django refuses database access in a thread with an event loop, and Playwright runs one in this thread.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    errors: list[str] = []
    with sync_playwright() as playwright:
        # Chromium's sandbox does not start as root, the user of many containers.
        options = [] if os.geteuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=_chromium(), args=options)
        page = browser.new_page(
            base_url=run.site,
            viewport={"width": 1280, "height": 900},
            locale=locale,
            timezone_id=timezone_id,
            color_scheme=color_scheme,
        )
        page.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", lambda request: errors.append(f"{request.url}: {request.failure}"))
        page.on("response", lambda got: errors.append(f"{got.url}: {got.status}") if got.status >= 400 else None)
        page.goto("/admin/")
        page.fill("[name=username]", "admin")
        page.fill("[name=password]", "admin-password")
        page.click("[type=submit]")
        page.wait_for_url("**/admin/")
        yield page
        page.goto("about:blank")
        browser.close()
    # The browser aborts pending requests when it leaves a page.
    assert [one for one in errors if "ERR_ABORTED" not in one] == []


def _chromium() -> str:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert found, "No Chromium: install Debian's package chromium"
    return found


def picture(page: Page, name: str) -> Path:
    """Save a screenshot of the page in var/screenshots, and return its path."""
    page.wait_for_load_state("load")
    page.evaluate("document.fonts.ready.then(() => true)")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path)
    return path


def send_poison(run: Run, value: str) -> None:
    """Send a message that is not an order event to the topic of order events, without the outbox."""
    run.manage("shell", "-c", SEND % value)


SEND = """
from events.kafka import Producer
from uuid import uuid4
from events.wire.messages import Message
from events.wire.timestamps import now
producer = Producer()
poison = Message(uuid4(), "POISON", "order-events", b"7", %r.encode(), headers=b"\\x90", created_at=now())
producer.send_all([poison])
producer.close()
"""
