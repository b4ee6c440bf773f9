from __future__ import annotations

import logging

from streams.engine import quiet


def make(name="aiokafka.conn", level=logging.ERROR, msg="Unable to connect to %s", args=("b",)):
    return logging.LogRecord(name, level, "f", 1, msg, args, None)


def test_the_same_message_passes_once_an_interval_and_counts_the_others():
    now = [0.0]
    limit = quiet.RateLimit(10.0, lambda: now[0])
    assert limit.filter(make())
    assert not any(limit.filter(make(args=("c",))) for _ in range(5))
    now[0] = 10.0
    again = make()
    assert limit.filter(again)
    assert again.getMessage() == "Unable to connect to b (5 more like this)"


def test_other_messages_loggers_and_levels_pass():
    limit = quiet.RateLimit(10.0, lambda: 0.0)
    assert limit.filter(make())
    assert limit.filter(make(msg="other %s"))
    assert limit.filter(make(name="aiokafka.client"))
    assert all(limit.filter(make(level=logging.INFO)) for _ in range(3))


def test_it_is_put_on_every_logger_of_the_libraries_once():
    loud = logging.getLogger("aiokafka.of_a_test")
    other = logging.getLogger("streams.of_a_test")
    quiet.limit()
    quiet.limit()
    assert len(loud.filters) == 1
    assert other.filters == []
