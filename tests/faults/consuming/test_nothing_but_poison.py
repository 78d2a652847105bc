"""Where nothing can be handled any more, something else is wrong: the consumer stops, and a restart is no answer."""

import re
from itertools import cycle

from testkit.foreign_events import all_told_once, foreign_event, letters, send
from testkit.kafka_client import Outgoing, produce_all
from testkit.processes import ProductProcess
from testkit.proxy import Proxy
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, OwnTopic, Start

LIMIT, POISON = 25, 40
EXIT_AT_LIMIT = 3
"""By contract."""
AT_ONCE = 10
"""Seconds."""


def clear_line(*, count: int, topic: OwnTopic) -> str:
    return rf"CommandError: Stopped after {count} dead letters in a row of group {topic.name}: .*\n"


def test_nothing_but_poison_stops_the_group_at_the_limit_and_only_a_raised_limit_lets_it_go_on(
    own_topic: OwnTopic, start: Start, proxy: Proxy
) -> None:
    def consume(limit: int) -> ProductProcess:
        return start(
            *(*CONSUME, "--group", own_topic.name, "--max-consecutive-dead-letters", str(limit)), **own_topic.env
        )

    partitions = cycle(range(3))
    poison = [Outgoing(b"poison %d" % number, partition=next(partitions)) for number in range(POISON)]
    produce_all(own_topic.name, poison)

    first = consume(LIMIT)
    assert first.process.wait(30) == EXIT_AT_LIMIT
    assert len(letters(group=own_topic.name)) == LIMIT
    assert len(re.findall(clear_line(count=LIMIT, topic=own_topic), first.log.read_text())) == 1
    assert not first.says("Traceback")

    again = consume(LIMIT)
    assert again.process.wait(AT_ONCE) == EXIT_AT_LIMIT
    assert re.fullmatch(clear_line(count=LIMIT, topic=own_topic), again.log.read_text())
    proxy.refuse()
    without_kafka = consume(LIMIT)
    assert without_kafka.process.wait(AT_ONCE) == EXIT_AT_LIMIT
    proxy.heal()
    assert len(letters(group=own_topic.name)) == LIMIT

    event = foreign_event()
    raised = consume(POISON + 1)
    wait_until(lambda: len(letters(group=own_topic.name)) == POISON)
    send([event], topic=own_topic.name)
    wait_until(lambda: all_told_once([event]))
    kept = letters(group=own_topic.name)
    assert sorted(letter.value or b"" for letter in kept) == sorted(message.value or b"" for message in poison)
    assert raised.stop() == 0, raised.log.read_text()

    # The message that could be handled has ended the row.
    once_more = consume(LIMIT)
    wait_until(lambda: once_more.says("Consuming"))
    assert once_more.stop() == 0, once_more.log.read_text()
