"""`Idempotency-Key`: answer a repeated request with the first response, without placing a second order.

The row of a key is written in the transaction that places the order. A request that fails leaves its key free.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from django.db import connection, transaction

from events.database import in_steps
from events.wire.timestamps import now
from orders.models import IdempotencyKey

KEY_LIFETIME = timedelta(hours=24)
"""Age at which a key expires, whether or not its row was pruned."""
PRUNE_BATCH_ROWS = 5_000
"""Largest number of rows that one transaction of `prune_keys` deletes."""

_PRINTABLE_ASCII = re.compile("[ -~]{1,255}")
_encoder = msgspec.json.Encoder(order="sorted")


class InvalidKey(ValueError):
    """A key has 1 to 255 printable ASCII characters, with or without quotes around them."""


class KeyInUse(Exception):
    """A request with this key is still being handled."""


class KeyOfAnotherBody(Exception):
    """This key was used with another body."""


class Answer(NamedTuple):
    """The 201 response to a request that places an order. `replayed` says whether it answers a repeated request."""

    body: bytes
    location: str
    replayed: bool = False


def parse_key(header: str) -> str:
    """Return the key in an `Idempotency-Key` header. Raise InvalidKey if it is malformed."""
    key = header.strip(" \t")
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _PRINTABLE_ASCII.fullmatch(key):
        raise InvalidKey(InvalidKey.__doc__)
    return key


@transaction.atomic
def answer_once(*, user_id: int, key: str, body: Any, create: Callable[[], Answer]) -> Answer:
    """Return the stored response to the user's key. If it is missing or expired, call `create` and store its response.

    `body` is parsed JSON with numbers as int or Decimal.

    Raises:
        KeyInUse: another transaction is handling a request with this key.
        KeyOfAnotherBody: the key was used with another body.
        RecursionError: `body` is nested too deeply.
    """
    fingerprint = _fingerprint(body)
    # A second INSERT of the same key would wait for the first transaction, where the client needs a 409 at once.
    locked = _try_lock(user_id, key)
    # This must stay a separate statement: its snapshot has to be newer than the lock.
    stored = IdempotencyKey.objects.filter(user=user_id, key=key, created_at__gt=now() - KEY_LIFETIME).first()
    if stored is None:
        if not locked:
            raise KeyInUse(KeyInUse.__doc__)
        answer = create()
        _store(user_id, key, fingerprint, answer)
        return answer
    if bytes(stored.fingerprint) != fingerprint:
        raise KeyOfAnotherBody(KeyOfAnotherBody.__doc__)
    return Answer(bytes(stored.body), stored.location, replayed=True)


def prune_keys() -> Iterator[int]:
    """Delete the expired keys in batches, one transaction each. Yield the number of rows deleted in each batch."""
    expired = IdempotencyKey.objects.filter(created_at__lte=now() - KEY_LIFETIME)
    for ids in in_steps(expired, size=PRUNE_BATCH_ROWS):
        # The age is checked again, because a request may have overwritten a row since it was selected.
        removed, _ = expired.filter(pk__in=ids).delete()
        yield removed


def _try_lock(user_id: int, key: str) -> bool:
    """Lock this user's key until the transaction ends. Return False if another transaction holds the lock."""
    digest = hashlib.sha256(f"{user_id} {key}".encode()).digest()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [int.from_bytes(digest[:8], signed=True)])
        (locked,) = cursor.fetchone()
    return bool(locked)


def _store(user_id: int, key: str, fingerprint: bytes, answer: Answer) -> None:
    """Store the response under this key, and overwrite an expired row of the same key."""
    row = IdempotencyKey(user_id=user_id, key=key, fingerprint=fingerprint, body=answer.body, location=answer.location)
    IdempotencyKey.objects.bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=["user", "key"],
        update_fields=["fingerprint", "body", "location", "created_at"],
    )


def _fingerprint(body: Any) -> bytes:
    """Return a hash that is the same for equal JSON, regardless of key order and number spelling."""
    return hashlib.sha256(_encoder.encode(_canonical(body))).digest()


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _canonical(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_canonical(member) for member in value]
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return msgspec.Raw(_canonical_number(Decimal(value)))
    return value


def _canonical_number(number: Decimal) -> bytes:
    """Return the same text for equal numbers, such as 1, 1.0 and 1e0.

    `Decimal.normalize()` is unsuitable: it rounds to 28 digits, and a large exponent makes it overflow.
    """
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits))
    significant = text.rstrip("0")
    if not significant:
        return b"0"
    return f"{'-' * sign}{significant}e{int(exponent) + len(text) - len(significant)}".encode()
