from __future__ import annotations

import pytest

from streams import topology
from streams.topology import DAY_MS, TOPICS, Topic, full_name

# The table of the contract: name, key, cleanup, retention, partitions (None = the setting).
CONTRACT = [
    ("events", "job key", "delete", 7, None),
    ("status", "job key", "compact", None, None),
    ("transitions", "job key", "delete", 30, None),
    ("alerts", "fingerprint", "compact,delete", 30, None),
    ("probes", "job key", "delete", 1, None),
    ("checkpoints", "stream", "compact", None, 1),
    ("health", "<source>/<queue>", "delete", 30, 1),
    ("dead-letters", "original key", "delete", 30, 1),
]


def test_the_topics_are_those_of_the_contract():
    assert [
        (topic.name, topic.key, topic.cleanup, topic.retention_ms and topic.retention_ms // DAY_MS, topic.partitions)
        for topic in TOPICS
    ] == CONTRACT


def test_each_says_what_its_values_are():
    assert all(topic.value for topic in TOPICS)


def test_names_are_declared_once():
    declared = {value for name, value in vars(topology).items() if name.isupper() and isinstance(value, str)}
    assert declared == {topic.name for topic in TOPICS}


@pytest.mark.parametrize(
    ("topic", "config"),
    [
        (Topic("a", "k", "compact", "v"), {"cleanup.policy": "compact"}),
        (Topic("a", "k", "delete", "v", 5), {"cleanup.policy": "delete", "retention.ms": "5"}),
        (
            Topic("a", "k", "delete", "v", 0, extra={"segment.ms": "9"}),
            {"cleanup.policy": "delete", "segment.ms": "9", "retention.ms": "0"},
        ),
    ],
)
def test_the_brokers_settings_are_texts(topic, config):
    assert topic.config() == config


def test_full_names():
    assert full_name("bullmq", "status") == "bullmq.status.v1"
    assert full_name("team.a", "dead-letters") == "team.a.dead-letters.v1"


def test_what_a_start_reads_is_cleaned_soon():
    for topic in TOPICS:
        if topic.cleanup == "compact":
            config = {key: float(value) for key, value in topic.config().items() if key != "cleanup.policy"}
            assert config["segment.bytes"] <= 32 << 20
            assert config["min.cleanable.dirty.ratio"] <= 0.2
            assert config["segment.ms"] <= config["max.compaction.lag.ms"] <= DAY_MS
    assert dict(TOPICS[1].config())["delete.retention.ms"] == str(7 * DAY_MS)
