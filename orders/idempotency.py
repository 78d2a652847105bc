"""`Idempotency-Key`: a request that is sent again gets the first one's answer, and does nothing a second time.

After draft-ietf-httpapi-idempotency-key-header. The key's row is written in the transaction of what it stands for:
there is no key without an order, and what failed leaves its key free.
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
from events.timestamps import now
from orders.models import IdempotencyKey

KEPT_FOR = timedelta(hours=24)
"""After that a key is new again, whether its row was pruned or not."""
PRUNED_AT_ONCE = 5_000

_PRINTABLE_ASCII = re.compile("[ -~]{1,255}")
_encoder = msgspec.json.Encoder(order="sorted")


class InvalidKey(ValueError):
    """A key has 1 to 255 printable ASCII characters, with or without quotes around them."""


class KeyInUse(Exception):
    """A request with this key is still being handled."""


class KeyOfAnotherBody(Exception):
    """This key was used with another body."""


class Answer(NamedTuple):
    """A 201 as the client got it."""

    body: bytes
    location: str
    replayed: bool = False


def parse_key(header: str) -> str:
    """The key in an `Idempotency-Key` header. Raises InvalidKey."""
    key = header.strip(" \t")
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _PRINTABLE_ASCII.fullmatch(key):
        raise InvalidKey(InvalidKey.__doc__)
    return key


@transaction.atomic
def answer_once(*, user_id: int, key: str, body: Any, create: Callable[[], Answer]) -> Answer:
    """What `create` answers, or what it answered when this key was first used. Raises KeyInUse, KeyOfAnotherBody.

    `body` is parsed JSON with numbers as int or Decimal. Raises RecursionError where it is nested too deeply.
    """
    fingerprint = _fingerprint(body)
    # A second INSERT of the same key would wait for the first one's transaction instead of refusing.
    locked = _try_lock(user_id, key)
    # A statement of its own: its snapshot has to be younger than the lock.
    stored = IdempotencyKey.objects.filter(user=user_id, key=key, created_at__gt=now() - KEPT_FOR).first()
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
    """Remove the keys that have expired, some thousand rows a transaction; yields how many of them were removed."""
    expired = IdempotencyKey.objects.filter(created_at__lte=now() - KEPT_FOR)
    for ids in in_steps(expired, size=PRUNED_AT_ONCE):
        # Once more only what has expired: a row may have been overwritten meanwhile.
        removed, _ = expired.filter(pk__in=ids).delete()
        yield removed


def _try_lock(user_id: int, key: str) -> bool:
    """Whether this transaction is the only one with this user's key, until it ends."""
    digest = hashlib.sha256(f"{user_id} {key}".encode()).digest()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [int.from_bytes(digest[:8], signed=True)])
        (locked,) = cursor.fetchone()
    return bool(locked)


def _store(user_id: int, key: str, fingerprint: bytes, answer: Answer) -> None:
    """An expired row of this key is overwritten."""
    row = IdempotencyKey(user_id=user_id, key=key, fingerprint=fingerprint, body=answer.body, location=answer.location)
    IdempotencyKey.objects.bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=["user", "key"],
        update_fields=["fingerprint", "body", "location", "created_at"],
    )


def _fingerprint(body: Any) -> bytes:
    """Equal for bodies that are equal as JSON, whatever the order of their keys and the spelling of their numbers."""
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
    """Not by normalize(), which rounds to 28 digits and overflows on large exponents."""
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits))
    significant = text.rstrip("0")
    if not significant:
        return b"0"
    return f"{'-' * sign}{significant}e{int(exponent) + len(text) - len(significant)}".encode()
