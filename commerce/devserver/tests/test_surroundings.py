import pytest

from commerce.devserver.run.messages import CannotRun
from commerce.devserver.run.surroundings import partitions


@pytest.mark.parametrize("text", ["three", "0", "-1", "3.5", "9" * 30])
def test_a_number_of_partitions_that_is_none_is_named(text: str) -> None:
    with pytest.raises(CannotRun, match=f"KAFKA_TOPIC_PARTITIONS is '{text}': give a whole number from 1 to 999999999"):
        partitions({"KAFKA_TOPIC_PARTITIONS": text})


def test_topics_have_three_partitions_where_none_are_named() -> None:
    assert partitions({}) == partitions({"KAFKA_TOPIC_PARTITIONS": ""}) == 3
