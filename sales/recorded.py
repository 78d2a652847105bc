"""The order events that this database has recorded."""

from orders.events import STREAM_PREFIX

RECORDED_EVENTS = f"""
    SELECT id, event_id, event_type, stream, sequence, value, created_at, recorded_at FROM events_outboxevent
    WHERE stream LIKE '{STREAM_PREFIX}%%'
    """  # noqa: S608 - it consists of constants
