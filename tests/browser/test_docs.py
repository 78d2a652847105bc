from playwright.sync_api import Page, expect

from testkit.customer import Customer
from testkit.whole_run import Run


def test_an_order_is_placed_from_the_documentation(page: Page, run: Run) -> None:
    page.goto("/api/docs")
    page.click("button.authorize")
    page.fill(".auth-container input >> nth=0", Customer(run.site).token)
    page.click(".auth-container button.authorize >> nth=0")
    page.click(".auth-container button.btn-done >> nth=0")
    placing = page.locator("#operations-Orders-placeOrder")
    placing.locator(".opblock-summary").click()
    placing.locator("button.try-out__btn").click()
    placing.locator("button.execute").click()
    expect(placing.locator(".live-responses-table .response-col_status").last).to_contain_text("201")
