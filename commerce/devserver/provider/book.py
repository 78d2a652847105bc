"""The provider's book: a SQLite file of payments and shipments, with the history of each.

A payment or a shipment is an entry. Its key is the `Idempotency-Key` of the request that asks for it.
"""

import json
import re
import sqlite3
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

UNSHIPPABLE_FROM = 9_000_000
"""The carrier refuses to ship a product with this id or a higher one."""


class Service(NamedTuple):
    """The names that differ between payments and shipments.

    Three of them are states of an entry. `undo_path` is the end of the path of a request that undoes an entry.
    """

    made: str
    refused: str
    undone: str
    undo_path: str


SERVICES = {
    "payments": Service("charged", "declined", "refunded", "refund"),
    "shipments": Service("booked", "refused", "cancelled", "cancellation"),
}
VOIDED = "voided"


class Entry(NamedTuple):
    """A payment or a shipment in the book."""

    state: str
    reason: str
    body: str
    """The JSON of the request for this payment or shipment; empty if a request to undo it came first."""


class Conflict(Exception):
    """An earlier request used the key with another body."""


class Book:
    """A SQLite file of payments and shipments by key, with the history of each."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS entry (service TEXT, key TEXT, state TEXT, reason TEXT, body TEXT,"
            " history TEXT, PRIMARY KEY (service, key))"
        )

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def find(self, service: str, key: str) -> Entry | None:
        with self._lock:
            return self._find(service, key)

    def make(self, service: str, key: str, body: Mapping[str, Any]) -> tuple[Entry, bool]:
        """Return the payment or shipment with this key, and whether it is new.

        If there is none, add an entry, which is made or refused. Its state says which.

        Raises Conflict if an earlier request used the key with another body.
        """
        text = json.dumps(body, sort_keys=True)
        with self._lock:
            if entry := self._find(service, key):
                if entry.body not in ("", text):
                    raise Conflict
                return entry, False
            reason = refusal(service, body)
            names = SERVICES[service]
            return self._save(service, key, Entry(names.refused if reason else names.made, reason, text)), True

    def undo(self, service: str, key: str) -> Entry:
        """Undo a payment or shipment that was made. Otherwise void its key, so that nothing can be made with this key.

        Return the entry. An entry that is already undone or voided does not change. A payment whose card takes no
        refunds keeps its state, and is returned with the reason.
        """
        with self._lock:
            entry = self._find(service, key) or Entry("", "", "")
            names = SERVICES[service]
            if entry.state in (names.undone, VOIDED):
                return entry
            if entry.state != names.made:
                return self._save(service, key, entry._replace(state=VOIDED, reason=entry.reason))
            if entry.body and json.loads(entry.body).get("token") == "tok_no_refund":
                return entry._replace(reason="This card takes no refunds")
            return self._save(service, key, entry._replace(state=names.undone, reason=""))

    def read(self, service: str) -> list[dict[str, Any]]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT key, state, reason, body, history FROM entry WHERE service = ? ORDER BY rowid", [service]
            ).fetchall()
        return [
            {"id": key, "state": state, "reason": reason, **json.loads(body or "{}"), "history": history.split(",")}
            for key, state, reason, body, history in rows
        ]

    def _find(self, service: str, key: str) -> Entry | None:
        row = self._connection.execute(
            "SELECT state, reason, body FROM entry WHERE service = ? AND key = ?", [service, key]
        ).fetchone()
        return Entry(*row) if row else None

    def _save(self, service: str, key: str, entry: Entry) -> Entry:
        self._connection.execute(
            "INSERT INTO entry VALUES (:service, :key, :state, :reason, :body, :state) ON CONFLICT DO UPDATE"
            " SET state = :state, reason = :reason, history = history || ',' || :state",
            {"service": service, "key": key, **entry._asdict()},
        )
        return entry


def refusal(service: str, body: Mapping[str, Any]) -> str:
    """Return why the provider refuses a new payment or shipment; an empty text if it does not."""
    if service == "payments":
        return "The card was declined" if body["token"] == "tok_declined" else ""  # noqa: S105 - it is no secret
    refused = [item["productId"] for item in body["items"] if item["productId"] >= UNSHIPPABLE_FROM]
    return f"Product {refused[0]} cannot be shipped" if refused else ""


def is_valid(service: str, body: Any) -> bool:
    """Return whether `body`, decoded JSON, is a request for a payment or a shipment, as `service` says.

    `service` is "payments" or "shipments".
    """
    if not isinstance(body, dict) or not isinstance(body.get("reference"), int):
        return False
    if service == "payments":
        amount = body.get("amount")
        is_amount = isinstance(amount, int | str) and re.fullmatch(r"[0-9]{1,18}([.][0-9]{1,2})?", str(amount))
        return bool(is_amount) and isinstance(body.get("token"), str)
    items = body.get("items")
    return isinstance(items, list) and all(
        isinstance(item, dict) and all(type(item.get(name)) is int for name in ("productId", "quantity"))
        for item in items
    )
