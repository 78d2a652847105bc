"""A consumer that can handle no message stops at a limit, and a restart does not reset the limit."""

import re
from itertools import cycle

from testkit.foreign_events import all_notified_once, foreign_event, open_dead_letters, send
from testkit.kafka_client import Outgoing, produce_all
from testkit.processes import ProductProcess
from testkit.proxy import Proxy
from testkit.waiting import wait_until
from tests.faults.conftest import CONSUME, OwnTopic, Start

DEAD_LETTER_LIMIT, POISON_MESSAGES = 25, 40
EXIT_CODE_AT_LIMIT = 3
"""Exit code of a consumer at the limit of consecutive dead letters, as documented."""
EXIT_TIMEOUT_S = 10


def clear_line(*, count: int, topic: OwnTopic) -> str:
    return rf"CommandError: Stopped after {count} dead letters in a row of group {topic.name}: .*\n"


def test_nothing_but_poison_stops_the_group_at_the_limit(own_topic: OwnTopic, start: Start, proxy: Proxy) -> None:
    """A restarted consumer stops at once, also without Kafka; a consumer with a raised limit goes on."""

    def consume(limit: int) -> ProductProcess:
        return start(
            *(*CONSUME, "--group", own_topic.name, "--max-consecutive-dead-letters", str(limit)), **own_topic.env
        )

    partitions = cycle(range(3))
    poison = [Outgoing(b"poison %d" % number, partition=next(partitions)) for number in range(POISON_MESSAGES)]
    produce_all(own_topic.name, poison)

    first = consume(DEAD_LETTER_LIMIT)
    assert first.process.wait(30) == EXIT_CODE_AT_LIMIT
    assert len(open_dead_letters(group=own_topic.name)) == DEAD_LETTER_LIMIT
    assert len(re.findall(clear_line(count=DEAD_LETTER_LIMIT, topic=own_topic), first.log.read_text())) == 1
    assert not first.says("Traceback")

    again = consume(DEAD_LETTER_LIMIT)
    assert again.process.wait(EXIT_TIMEOUT_S) == EXIT_CODE_AT_LIMIT
    assert re.fullmatch(clear_line(count=DEAD_LETTER_LIMIT, topic=own_topic), again.log.read_text())
    proxy.refuse()
    without_kafka = consume(DEAD_LETTER_LIMIT)
    assert without_kafka.process.wait(EXIT_TIMEOUT_S) == EXIT_CODE_AT_LIMIT
    proxy.heal()
    assert len(open_dead_letters(group=own_topic.name)) == DEAD_LETTER_LIMIT

    event = foreign_event()
    raised = consume(POISON_MESSAGES + 1)
    wait_until(lambda: len(open_dead_letters(group=own_topic.name)) == POISON_MESSAGES)
    send([event], topic=own_topic.name)
    wait_until(lambda: all_notified_once([event]))
    dead_letters = open_dead_letters(group=own_topic.name)
    assert sorted(letter.value or b"" for letter in dead_letters) == sorted(message.value or b"" for message in poison)
    assert raised.stop() == 0, raised.log.read_text()

    # The handled event has reset the count of consecutive dead letters.
    once_more = consume(DEAD_LETTER_LIMIT)
    wait_until(lambda: once_more.says("Consuming"))
    assert once_more.stop() == 0, once_more.log.read_text()
