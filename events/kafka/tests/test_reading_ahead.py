"""Reading ahead: the order of the client's calls, and what becomes of records that are read and not handled."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

import pytest
from kafka.errors import TopicAuthorizationFailedError

from conftest import Topics
from events.kafka import Consumer, KafkaError, Record
from events.kafka.lag import group_lag
from events.kafka.reading_ahead import AHEAD_BYTES, ReadAhead
from testkit.factories import kafka_record
from testkit.kafka_client import Outgoing, produce_all
from testkit.waiting import wait_until

DEADLINE_S = 10
A, B, C = ([kafka_record(name, offset=offset)] for offset, name in enumerate([b"a", b"b", b"c"]))
ELSEWHERE = [kafka_record(b"elsewhere", partition=1)]


class Client:
    """A stand-in for `Consumer` that returns `batches` in turn. It notes each call, and refuses two calls at once."""

    def __init__(self, *batches: list[Record]) -> None:
        self._batches = list(batches)
        self.calls: list[tuple[str, object]] = []
        self._in_use = threading.Lock()
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.error: Exception | None = None

    @contextmanager
    def _call(self, name: str, what: object = None) -> Iterator[None]:
        assert self._in_use.acquire(blocking=False), f"{name} during another call"
        try:
            yield
            self.calls.append((name, what))
        finally:
            self._in_use.release()

    def poll(self, *, timeout: float, in_hand: bool = False) -> list[Record]:
        assert in_hand is (timeout == 0), "A poll while a batch is in hand must say so"
        records = self._batches.pop(0) if self._batches else []
        with self._call("poll", records):
            return records

    def commit(self, records: Iterable[Record]) -> None:
        with self._call("commit", records):
            assert self.may_commit.wait(DEADLINE_S)
            if self.error:
                raise self.error

    def hold(self, records: Sequence[Record]) -> None:
        with self._call("hold", records):
            pass

    def release(self) -> None:
        with self._call("release"):
            pass

    def close(self) -> None:
        with self._call("close"):
            pass


def test_the_next_batch_is_read_before_the_first_is_committed() -> None:
    client = Client(A, B)
    ahead = ReadAhead(client)
    assert ahead.poll(timeout=1) == A
    wait_until(lambda: client.calls == [("poll", A), ("poll", B)])
    ahead.commit(A)
    assert ahead.poll(timeout=1) == B
    ahead.close()
    assert client.calls[:3] == [("poll", A), ("poll", B), ("commit", A)]


def test_every_batch_is_returned_once_and_in_order() -> None:
    ahead = ReadAhead(Client(A, B, C))
    assert [ahead.poll(timeout=1) for _ in range(5)] == [A, B, C, [], []]
    ahead.close()


def test_nothing_is_read_while_a_large_batch_is_handled() -> None:
    large = [kafka_record(bytes(AHEAD_BYTES // 2), offset=offset) for offset in (0, 1)]
    larger = [*large, *A]
    client = Client(large, larger, B)
    ahead = ReadAhead(client)
    assert ahead.poll(timeout=1) == large
    wait_until(lambda: len(client.calls) == 2)
    assert ahead.poll(timeout=1) == larger
    ahead.commit(larger)
    assert ahead.poll(timeout=1) == B
    ahead.close()
    assert [call for call, _ in client.calls[:4]] == ["poll", "poll", "commit", "poll"]


def test_a_commit_does_not_hold_up_the_caller() -> None:
    client = Client(A, B)
    client.may_commit.clear()
    ahead = ReadAhead(client)
    ahead.commit(ahead.poll(timeout=1))
    assert ahead.poll(timeout=1) == B
    assert ("commit", A) not in client.calls
    client.may_commit.set()
    ahead.close()
    assert ("commit", A) in client.calls


@pytest.mark.parametrize(
    "follow",
    [lambda ahead: ahead.poll(timeout=1), lambda ahead: ahead.hold(A), lambda ahead: ahead.close()],
    ids=["poll", "hold", "close"],
)
def test_a_call_waits_for_the_commit(follow: Callable[[ReadAhead], object]) -> None:
    client = Client(A)
    client.may_commit.clear()
    ahead = ReadAhead(client)
    ahead.commit(ahead.poll(timeout=1))
    wait_until(lambda: len(client.calls) == 2)
    threading.Timer(0.05, client.may_commit.set).start()
    follow(ahead)
    assert [call for call, _ in client.calls[:3]] == ["poll", "poll", "commit"]
    ahead.close()


def test_hold_goes_back_before_the_records_read_ahead() -> None:
    client = Client(A, ELSEWHERE)
    ahead = ReadAhead(client)
    ahead.hold(ahead.poll(timeout=1))
    assert ("hold", A + ELSEWHERE) in client.calls
    assert ahead.poll(timeout=1) == []
    ahead.close()


def test_close_finishes_the_commit() -> None:
    client = Client(A)
    ahead = ReadAhead(client)
    ahead.commit(ahead.poll(timeout=1))
    ahead.close()
    assert client.calls[-2:] == [("commit", A), ("close", None)]


def test_an_error_of_a_commit_is_raised_by_the_next_one() -> None:
    client = Client(A, B)
    client.error = TopicAuthorizationFailedError()
    ahead = ReadAhead(client)
    ahead.commit(ahead.poll(timeout=1))
    with pytest.raises(KafkaError):
        ahead.commit(ahead.poll(timeout=1))
    ahead.close()


def test_close_raises_the_commits_error_and_leaves_the_group() -> None:
    client = Client(A)
    client.error = TopicAuthorizationFailedError()
    ahead = ReadAhead(client)
    ahead.commit(ahead.poll(timeout=1))
    with pytest.raises(KafkaError):
        ahead.close()
    assert client.calls[-1] == ("close", None)


class TestOffsets:
    """The offsets that a `Consumer` commits to a broker."""

    @pytest.fixture
    def group(self) -> str:
        return f"group-{uuid4().hex[:8]}"

    @pytest.fixture
    def consumer(self, topics: Topics, group: str) -> Iterator[Consumer]:
        produce_all(topics.order_events, [Outgoing(b"%d" % number, partition=0) for number in range(4)])
        consumer = Consumer(topic=topics.order_events, group=group, batch_size=2)
        yield consumer
        consumer.close()

    def read_and_commit(self, consumer: Consumer) -> list[Record]:
        records: list[Record] = wait_until(lambda: consumer.poll(timeout=0.1))
        consumer.commit(records)
        return records

    def committed(self, topics: Topics, group: str) -> int | None:
        return group_lag(topic=topics.order_events, group=group)[0].current_offset

    def test_an_empty_poll_commits_no_record_that_is_in_hand(
        self, topics: Topics, group: str, consumer: Consumer
    ) -> None:
        first = wait_until(lambda: consumer.poll(timeout=0.1))
        second = wait_until(lambda: consumer.poll(timeout=0.1, in_hand=True))
        assert [record.offset for record in first + second] == [0, 1, 2, 3]
        assert consumer.poll(timeout=0.1, in_hand=True) == []
        assert self.committed(topics, group) is None
        consumer.commit(first)
        assert consumer.poll(timeout=0.1, in_hand=True) == []
        assert self.committed(topics, group) == 2
        consumer.commit(second)
        assert self.committed(topics, group) == 4

    def test_records_saved_across_a_rebalance_are_committed(
        self, topics: Topics, group: str, consumer: Consumer
    ) -> None:
        """The member keeps its partitions in a rebalance that comes while it has a batch in hand."""
        saved = wait_until(lambda: consumer.poll(timeout=0.1))
        consumer.on_partitions_revoked(consumer._client.assignment())
        consumer.commit(saved)
        assert self.committed(topics, group) == 2

    def test_a_batch_that_is_read_again_may_be_committed(self, topics: Topics, group: str, consumer: Consumer) -> None:
        old = wait_until(lambda: consumer.poll(timeout=0.1))
        consumer.hold(old)
        consumer.release()
        assert [record.offset for record in self.read_and_commit(consumer)] == [0, 1]
        assert self.committed(topics, group) == 2

    def test_hold_goes_back_to_the_least_offset(self, consumer: Consumer) -> None:
        first = wait_until(lambda: consumer.poll(timeout=0.1))
        second = wait_until(lambda: consumer.poll(timeout=0.1))
        consumer.hold(second + first)
        consumer.release()
        assert wait_until(lambda: consumer.poll(timeout=0.1))[0].offset == 0
