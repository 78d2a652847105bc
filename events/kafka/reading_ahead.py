"""Reading ahead: a thread reads the next records while the caller saves the current ones.

The database takes about as long to save a batch as Python takes to read one. While psycopg2 waits for the database,
another thread can run.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from events.kafka.receiving import Consumer
from events.kafka.records import Record

AHEAD_BYTES = 4 * 1024 * 1024
"""Largest batch, in bytes, that the caller handles while the next one is read. 500 order events are far below.

The handling of large records takes a multiple of their size in memory. The decompression of the next batch must not
add to it.
"""


class ReadAhead:
    """A `Consumer` that reads the next batch, and commits the previous one, while the caller handles a batch.

    It uses a thread for this. This thread and the caller never use the client at once: `poll`, `hold` and `close` wait
    for the thread's calls before they make their own, and `release` follows `hold`. Records that were read ahead are
    not committed before `poll` returns them. After `hold`, they are read again.
    """

    def __init__(self, consumer: Consumer, thread: Executor | None = None) -> None:
        self._consumer = consumer
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="reading-ahead")
        self._ahead: Future[list[Record]] | None = None
        self._committing: Future[None] | None = None

    def poll(self, *, timeout: float) -> list[Record]:
        """Return the next records. Unless they are large, start to read the records after them. See `Consumer.poll`.

        If no records were read ahead and the previous commit failed, raise the error of this commit instead.
        """
        records = self._take_ahead()
        if not records:
            self._finish_commit()
            records = self._consumer.poll(timeout=timeout)
        if records and sum(record.serialized_value_size for record in records) <= AHEAD_BYTES:
            # This poll takes only what has arrived, because the commit of `records` waits until it ends.
            self._ahead = self._thread.submit(self._consumer.poll, timeout=0, in_hand=True)
        return records

    def commit(self, records: Iterable[Record]) -> None:
        """Start to commit the offsets after `records`. If the previous commit failed, raise its error instead."""
        self._finish_commit()
        self._committing = self._thread.submit(self._consumer.commit, records)

    def hold(self, records: Sequence[Record]) -> None:
        """Go back to the first of `records` on each partition, and pause the partitions. See `Consumer.hold`.

        If the thread's poll or commit has failed, raise its error instead.
        """
        ahead = self._take_ahead()
        self._finish_commit()
        self._consumer.hold([*records, *ahead])

    def release(self) -> None:
        """End the pause that `hold` began, and continue to read."""
        self._consumer.release()

    def close(self) -> None:
        """Finish the commit in progress, and leave the group. The partitions' next owner reads what was read ahead.

        Raises the error of that commit, if it failed, after leaving the group.
        """
        try:
            self._finish_commit()
        finally:
            self._thread.shutdown()
            self._consumer.close()

    def _take_ahead(self) -> list[Record]:
        ahead, self._ahead = self._ahead, None
        return ahead.result() if ahead else []

    def _finish_commit(self) -> None:
        committing, self._committing = self._committing, None
        if committing:
            committing.result()
