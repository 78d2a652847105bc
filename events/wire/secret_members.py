"""Hide the secret members of a message, such as a payment token."""

from collections.abc import Collection
from typing import Final

import msgspec

HIDDEN: Final = "..."
"""Text that replaces a secret value."""

_members: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


def masked(value: bytes, names: Collection[str]) -> bytes:
    """Return the JSON object `value` with `HIDDEN` as the value of each member with one of `names`, at any depth.

    The comparison of names ignores case, `_` and `-`. A message may be a dead letter because it misspells the name of a
    secret member, and this secret must be hidden, too.

    Raises:
        UnicodeDecodeError, msgspec.DecodeError, RecursionError: the value is no JSON object, or too deep.
    """
    return _object(value.decode().encode(), {_folded(name) for name in names})


def _object(raw: bytes, secret: Collection[str]) -> bytes:
    members = _members.decode(raw)
    return msgspec.json.encode(
        {name: HIDDEN if _folded(name) in secret else _value(one, secret) for name, one in members.items()}
    )


def _value(raw: msgspec.Raw, secret: Collection[str]) -> msgspec.Raw:
    content = bytes(raw).lstrip()
    if content.startswith(b"{"):
        return msgspec.Raw(_object(content, secret))
    if content.startswith(b"["):
        return msgspec.Raw(msgspec.json.encode([_value(one, secret) for one in _items.decode(content)]))
    return raw


def _folded(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "")
