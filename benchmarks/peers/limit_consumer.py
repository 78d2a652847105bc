"""An upper bound on the speed of a consumer that uses the product's libraries and SQL.

This consumer checks nothing. It skips headers, decodes with msgspec, and saves a batch as one JSON parameter. Meanwhile
a thread reads the next batch.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django
import msgspec
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch, decode_varint

django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402

INSERT = """
    INSERT INTO notifications_notification (user_id, order_id, event_id, type, message, created_at)
    SELECT new.*, statement_timestamp()
    FROM json_to_recordset(%s) AS new (user_id bigint, order_id bigint, event_id uuid, type text, message text)
    ON CONFLICT DO NOTHING
    """


class Event(msgspec.Struct, rename="camel"):
    event_id: str
    event_type: str
    order_id: int
    user_id: int
    total_amount: float


class Row(msgspec.Struct):
    user_id: int
    order_id: int
    event_id: str
    type: str
    message: str


decode = msgspec.json.Decoder(Event).decode


class HeaderlessBatch(DefaultRecordBatch):
    """An uncompressed batch. Its reader skips the records' headers and checks no lengths."""

    _pos: int

    def __init__(self, buffer: memoryview) -> None:
        super().__init__(buffer)
        self._buffer = bytes(buffer)

    def _read_msg(self) -> Any:
        buffer = self._buffer
        length, start = decode_varint(buffer, self._pos)
        self._pos = start + length
        timestamp_delta, at = decode_varint(buffer, start + 1)
        offset_delta, at = decode_varint(buffer, at)
        key_length, at = decode_varint(buffer, at)
        key_end = at + key_length
        value_length, value_at = decode_varint(buffer, key_end)
        return DefaultRecord(
            length,
            self.base_offset + offset_delta,
            self.first_timestamp + timestamp_delta,
            0,
            buffer[at:key_end],
            buffer[value_at : value_at + value_length],
            (),
        )


def read_on(consumer: KafkaConsumer, saved: dict[TopicPartition, OffsetAndMetadata]) -> tuple[list[Row], Any]:
    """Commit `saved`, the offsets of the saved rows. Return the next rows, and their offsets for the next commit."""
    if saved:
        consumer.commit(saved)
    polled = consumer.poll(timeout_ms=1000)
    events = [decode(record.value) for records in polled.values() for record in records]
    rows = [
        Row(
            event.user_id,
            event.order_id,
            event.event_id,
            event.event_type,
            f"주문이 생성되었습니다. 주문번호: {event.order_id}, 금액: {event.total_amount:.2f}원",
        )
        for event in events
    ]
    return rows, {partition: OffsetAndMetadata(records[-1].offset + 1, "", -1) for partition, records in polled.items()}


def main(topic: str, group: str) -> None:
    # The client looks the class up in this module. Loading the product's apps has put the product's class there.
    memory_records.DefaultRecordBatch = HeaderlessBatch
    encode = msgspec.json.Encoder().encode
    consumer = KafkaConsumer(
        topic,
        group_id=group,
        bootstrap_servers=settings.KAFKA_BOOTSTRAP_SERVERS,
        api_version=settings.KAFKA_API_VERSION,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=500,
    )
    with ThreadPoolExecutor(1) as thread:
        saved: dict[TopicPartition, OffsetAndMetadata] = {}
        rows, offsets = read_on(consumer, saved)
        while True:
            reading = thread.submit(read_on, consumer, saved)
            if rows:
                with connection.cursor() as cursor:
                    cursor.execute(INSERT, [encode(rows).decode()])
            saved = offsets
            rows, offsets = reading.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
