"""Headers of a dead letter whose message came from a `-dlt` topic, with that topic's headers, and has failed again.

They do not grow with each round: as with Spring Kafka's DeadLetterPublishingRecoverer since 2.8, the position stays
that of the first failure, and the exception is the latest one.

Source: https://docs.spring.io/spring-kafka/reference/kafka/annotation-error-handling.html#dlpr-headers
"""

import re
from collections.abc import Iterable, Sequence

from events.headers import Header

GROUP = "kafka_dlt-original-consumer-group"
POSITION = {
    "kafka_dlt-original-topic": re.compile(rb"[a-zA-Z0-9._-]{1,249}"),
    "kafka_dlt-original-partition": re.compile(rb"[\0-\x7f].{3}", re.DOTALL),
    "kafka_dlt-original-offset": re.compile(rb"[\0-\x7f].{7}", re.DOTALL),
    "kafka_dlt-original-timestamp": re.compile(rb".{8}", re.DOTALL),
    "kafka_dlt-original-timestamp-type": re.compile(rb"CreateTime|LogAppendTime"),
}
"""What a position consists of, as Kafka allows it. Numbers are big-endian; only the timestamp may be negative."""
EXCEPTION = re.compile(r"kafka_dlt-(key-)?exception-(fqcn|cause-fqcn|message|stacktrace)")


def with_spring_headers(headers: Iterable[Header], spring_headers: Sequence[Header]) -> list[Header]:
    """Return a message's `headers` with the `spring_headers` of its latest failure, each name of these once.

    A position that the message brings is kept where it is whole: a topic of one failure with an offset of another
    would lead nowhere. The consumer group may be missing, because Spring Kafka has written it since 2.8 only. Of a
    header that stands there twice the last one counts, as for Spring.
    """
    own, brought = [], {}
    for name, value in headers:
        if name in POSITION or name == GROUP:
            brought[name] = value
        elif not EXCEPTION.fullmatch(name):
            own.append((name, value))
    is_whole = all(form.fullmatch(brought.get(name) or b"") for name, form in POSITION.items())
    kept = {name: value for name, value in brought.items() if value} if is_whole else {}
    return own + [(name, kept.get(name, value)) for name, value in spring_headers]
