"""Headers of a dead letter whose message was sent back from a `-dlt` topic and failed again.

The headers do not grow with each failure. As in Spring Kafka's DeadLetterPublishingRecoverer since 2.8, the position is
that of the first failure, and the exception is that of the last one.

Source: https://docs.spring.io/spring-kafka/reference/kafka/annotation-error-handling.html#dlpr-headers
"""

import re
from collections.abc import Iterable, Sequence

from events.wire.headers import Header

GROUP_HEADER = "kafka_dlt-original-consumer-group"
POSITION_HEADERS = {
    "kafka_dlt-original-topic": re.compile(rb"[a-zA-Z0-9._-]{1,249}"),
    "kafka_dlt-original-partition": re.compile(rb"[\0-\x7f].{3}", re.DOTALL),
    "kafka_dlt-original-offset": re.compile(rb"[\0-\x7f].{7}", re.DOTALL),
    "kafka_dlt-original-timestamp": re.compile(rb".{8}", re.DOTALL),
    "kafka_dlt-original-timestamp-type": re.compile(rb"CreateTime|LogAppendTime"),
}
"""Headers of a record's position, each with the pattern of its allowed values. Numbers are big-endian. Only the
timestamp may be negative."""
EXCEPTION_HEADER = re.compile(r"kafka_dlt-(key-)?exception-(fqcn|cause-fqcn|message|stacktrace)")


def with_spring_headers(headers: Iterable[Header], spring_headers: Sequence[Header]) -> list[Header]:
    """Return `headers` with their Spring Kafka headers replaced by `spring_headers`, which describe the last failure.

    The headers of the original position (topic, partition, offset and timestamp) are kept if each of them has a valid
    value. Otherwise all of them are replaced, because a position with parts from two failures would be wrong. With the
    position, the header of the original consumer group is kept. If it is missing, the one in `spring_headers` is used:
    Spring Kafka before 2.8 does not write it. If a header occurs twice, the last one counts, as in Spring.
    """
    own, brought = [], {}
    for name, value in headers:
        if name in POSITION_HEADERS or name == GROUP_HEADER:
            brought[name] = value
        elif not EXCEPTION_HEADER.fullmatch(name):
            own.append((name, value))
    is_whole = all(form.fullmatch(brought.get(name) or b"") for name, form in POSITION_HEADERS.items())
    kept = {name: value for name, value in brought.items() if value} if is_whole else {}
    return own + [(name, kept.get(name, value)) for name, value in spring_headers]
