import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from commerce.devserver.embedded_postgres import data_home
from testkit.processes import CHECKOUT, free_port
from testkit.whole_run import Run, copy_checkout

SCREENSHOTS = CHECKOUT / "var" / "screenshots"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    checkout = tmp_path_factory.mktemp("checkout")
    copy_checkout(checkout)
    run = Run(checkout, free_port())
    try:
        assert run.says(f"READY {run.site}\n"), run.log.read_text()
        yield run
    finally:
        run.stop()
        if data_home(checkout) != checkout / "var":
            shutil.rmtree(data_home(checkout))


@pytest.fixture
def timezone_id() -> str | None:
    """The browser's time zone; None for that of the machine."""
    return None


@pytest.fixture
def page(run: Run, timezone_id: str | None) -> Iterator[Page]:
    """Logged in to admin. At its end the browser must not have complained of anything."""
    # Playwright's loop runs in this thread, and Django would refuse the database beside it.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    complaints: list[str] = []
    with sync_playwright() as playwright:
        # As root, which many a container is, Chromium does not start with its sandbox.
        options = [] if os.geteuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=_chromium(), args=options)
        page = browser.new_page(
            base_url=run.site, viewport={"width": 1280, "height": 900}, locale="en-US", timezone_id=timezone_id
        )
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
        page.on("response", lambda got: complaints.append(f"{got.url}: {got.status}") if got.status >= 400 else None)
        page.goto("/admin/")
        page.fill("[name=username]", "admin")
        page.fill("[name=password]", "admin-password")
        page.click("[type=submit]")
        page.wait_for_url("**/admin/")
        yield page
        page.goto("about:blank")
        browser.close()
    # What was asked for when a page was left is nobody's trouble.
    assert [one for one in complaints if "ERR_ABORTED" not in one] == []


def _chromium() -> str:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert found, "No Chromium: install Debian's package chromium"
    return found


def picture(page: Page, name: str) -> Path:
    """What the page shows now, in var/screenshots."""
    page.wait_for_load_state("load")
    page.evaluate("document.fonts.ready.then(() => true)")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path)
    return path
