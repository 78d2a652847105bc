"""Recognize prefixes that make a JSON decoder refuse a value, and describe them for the error message."""

import codecs

SCHEMA_REGISTRY_FRAME_BYTES = 5
"""Length of the prefix that a schema registry's serializer writes: a zero byte and the schema id (int32).

Source: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "UTF-8",
    codecs.BOM_UTF32_LE: "UTF-32",  # Its first two bytes are UTF-16's mark.
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def byte_order_mark(text: bytes) -> str | None:
    """Return a description of the byte order mark at the start of `text`; None without one."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if text.startswith(mark):
            return f"the byte order mark of {encoding} ({mark.hex(' ')})"
    return None


def schema_registry_frame(value: bytes) -> str | None:
    """Return a description of the schema registry prefix at the start of `value`; None without one."""
    if len(value) <= SCHEMA_REGISTRY_FRAME_BYTES or value[0] != 0:
        return None
    schema_id = int.from_bytes(value[1:SCHEMA_REGISTRY_FRAME_BYTES])
    return f"the {SCHEMA_REGISTRY_FRAME_BYTES} bytes of a schema registry (a zero byte and the schema id {schema_id})"
