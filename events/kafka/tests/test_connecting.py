from events.kafka.connecting import last_words_first


def test_what_a_broker_says_before_it_hangs_up_is_heard() -> None:
    end = ConnectionError("socket disconnected")
    receive = last_words_first(lambda: (b"wrong password", end))
    assert receive() == (b"wrong password", None)
    assert receive() == (b"", end)


def test_an_end_without_words_is_the_end() -> None:
    end = ConnectionError("socket disconnected")
    assert last_words_first(lambda: (b"", end))() == (b"", end)
