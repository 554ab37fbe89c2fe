"""Kafka, with librdkafka's mock cluster: what is in the spool decides where it goes on."""

import contextlib
import threading
from collections import Counter

import pytest
from confluent_kafka import Producer
from telemetry import canonical_line

from relaywatch.live.addresses import Topics
from relaywatch.live.inbox import Inbox
from relaywatch.live.kafka import KafkaInput
from relaywatch.live.positions import Positions
from relaywatch.live.taking import LiveError

TOPIC = "flows"


@pytest.fixture(scope="module")
def cluster():
    """A broker in this process; its producer."""
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "linger.ms": 0})
    metadata = producer.list_topics(timeout=10)
    yield producer, ",".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())
    producer.flush(10)


def send(producer, topic, numbers):
    for number in numbers:
        producer.produce(topic, canonical_line(number).encode(), partition=number % 2)
    producer.flush(10)


@contextlib.contextmanager
def consuming(brokers, topic, group, positions):
    inbox = Inbox()
    messages = []
    topics = Topics(brokers, [topic], group, {"session.timeout.ms": "6000", "fetch.wait.max.ms": "20"})
    source = KafkaInput(topics, "", messages.append)
    source.start(inbox, positions)
    try:
        yield inbox
    finally:
        inbox.close()
        source.stop()


def rows(inbox, wanted, positions, records, *, keep=True):
    """Take until so many rows came; the records are counted by number."""
    met = 0
    while met < wanted:
        found = inbox.take(20.0)
        assert found, f"{met} of {wanted} rows came"
        for taken in found:
            for batch in taken.batches:
                met += batch.rows.num_rows
                if keep:
                    records.update(batch.rows["position"].to_pylist())
            if keep:
                positions.move(taken.positions)
            taken.done(keep)


def test_each_message_counts_once_over_stops_and_crashes(cluster):
    producer, brokers = cluster
    send(producer, TOPIC, range(1, 101))
    positions, records = Positions(), Counter()
    with consuming(brokers, TOPIC, "a", positions) as inbox:
        rows(inbox, 100, positions, records)
        send(producer, TOPIC, range(101, 151))
        rows(inbox, 50, positions, records, keep=False)  # taken, and lost before it was on disk
    with consuming(brokers, TOPIC, "another", positions) as inbox:
        rows(inbox, 50, positions, records)
    assert records == Counter(range(1, 151))
    assert {key: held["next"] for key, held in positions.of("kafka")} == {f"{TOPIC}/0": 75, f"{TOPIC}/1": 75}


def test_a_message_that_is_no_telemetry_is_put_aside(cluster):
    producer, brokers = cluster
    for body in (b"hello", None, canonical_line(1).encode()):
        producer.produce("mixed", body, partition=0)
    producer.flush(10)
    positions, aside = Positions(), []
    with consuming(brokers, "mixed", "a", positions) as inbox:
        while len(aside) < 2 or not dict(positions.of("kafka")).get("mixed/0", {}).get("lines"):
            for taken in inbox.take(20.0):
                aside += [(entry.position, entry.reason) for entry in taken.aside]
                positions.move(taken.positions)
                taken.done(True)  # noqa: FBT003
    assert aside == [("offset 0", "of no format that can be sent"), ("offset 1", "an empty message")]


def test_a_setting_that_librdkafka_does_not_know_is_told():
    with pytest.raises(LiveError, match="--kafka-config"):
        KafkaInput(Topics("localhost:1", ["a"], "g", {"no.such.setting": "1"}), "", print)


def test_it_stops_while_no_broker_answers():
    inbox = Inbox()
    source = KafkaInput(Topics("127.0.0.1:1", ["a"], "g"), "", lambda _: None)
    source.start(inbox, Positions())
    stopped = threading.Thread(target=source.stop)
    stopped.start()
    stopped.join(10)
    assert source.ended
