"""A customer of the REST API."""

from typing import Any
from uuid import uuid4

import httpx

PASSWORD = "correct horse battery"


class Customer:
    """A user who is registered and logged in at a running site."""

    def __init__(self, site: str) -> None:
        self.http = httpx.Client(base_url=site, timeout=10, trust_env=False)
        name = {"username": f"customer-{uuid4().hex[:12]}", "password": PASSWORD}
        self.id: int = self._post("/api/auth/register", name)["id"]
        self.token: str = self._post("/api/auth/token", name)["access"]
        self.http.headers["Authorization"] = f"Bearer {self.token}"

    def place_order(self, *, price: str = "100.00") -> Any:
        """Place an order and return it. Raises AssertionError if the status is not 201."""
        body = f'{{"items":[{{"productId":1,"quantity":2,"price":{price}}}]}}'
        response = self.http.post("/api/orders", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 201, response.text
        return response.json()

    def change(self, order_id: int, action: str) -> Any:
        """Apply `action`, `pay` or `cancel`, and return the order.

        Raises httpx.HTTPStatusError if the status is not 2xx.
        """
        return self._post(f"/api/orders/{order_id}/{action}", None)

    def check_out(self, order_id: int, payment_token: str) -> Any:
        """Check out the order, and return its fulfilment. Raises httpx.HTTPStatusError if the status is not 2xx."""
        return self._post(f"/api/orders/{order_id}/checkout", {"paymentToken": payment_token})

    def fulfilment(self, order_id: int) -> Any:
        return self.http.get(f"/api/orders/{order_id}/fulfilment").raise_for_status().json()

    def notifications(self, order_id: int | None = None) -> list[Any]:
        """Return the newest 200 notifications, newest first. With `order_id`, return those of them about this order."""
        listed = self.http.get("/api/notifications", params={"limit": 200}).raise_for_status().json()
        return [one for one in listed if order_id in (None, one["orderId"])]

    def all_notifications(self) -> list[Any]:
        """Return all notifications of this customer, newest first, page by page."""
        listed: list[Any] = []
        url: str | None = "/api/notifications?limit=200"
        while url:
            page = self.http.get(url).raise_for_status()
            listed += page.json()
            url = page.links.get("next", {}).get("url")
        return listed

    def events(self, order_id: int) -> list[Any]:
        listed: list[Any] = self.http.get(f"/api/orders/{order_id}/events").raise_for_status().json()
        return listed

    def _post(self, path: str, body: Any) -> Any:
        return self.http.post(path, json=body).raise_for_status().json()
