"""Kafka, with librdkafka's mock cluster: what is in the spool decides where it goes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from telemetry import canonical_line

from relaywatch.live.addresses import Topics, kafka_topics
from relaywatch.live.inbox import Inbox
from relaywatch.live.kafka import KafkaInput
from relaywatch.live.positions import Positions
from relaywatch.live.taking import LiveError

TOPIC = "flows"
PARTITIONS = 4
"""Of every topic that the mock cluster makes."""


def mock_cluster():
    """A cluster of one broker on loopback, which lives as long as the producer; its producer and its brokers."""
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "linger.ms": 0, "log_level": 2})
    metadata = producer.list_topics(timeout=10)
    return producer, ",".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())


@pytest.fixture(scope="module")
def cluster():
    producer, brokers = mock_cluster()
    yield producer, brokers
    producer.flush(10)


def send(producer, topic, numbers, partitions=2):
    for number in numbers:
        producer.produce(topic, canonical_line(number).encode(), partition=number % partitions)
    producer.flush(10)


@contextlib.contextmanager
def consuming(brokers, topic, group, positions, told=None, **more):
    inbox = Inbox()
    settings = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500", "fetch.wait.max.ms": "20"}
    settings |= {name.replace("_", "."): value for name, value in more.items()}
    source = KafkaInput(Topics(brokers, [topic], group, settings), "", [].append if told is None else told.append)
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


def settings_file(folder, group):
    """Settings of a watcher that gets its partitions back as soon as it is there again."""
    path = folder / f"{group}.conf"
    path.write_text(f"group.id={group}\ngroup.instance.id=one\nsession.timeout.ms=6000\nfetch.wait.max.ms=20\n")
    return path


def test_a_kill_loses_and_doubles_nothing(cluster, watcher, tmp_path):
    producer, brokers = cluster
    where, settings, written = f"{brokers}/killed", settings_file(tmp_path, "killed"), 0
    script = [sys.executable, str(Path(__file__).parent / "watching.py"), str(watcher.state), where, str(settings)]
    for _ in range(2):
        with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as process:
            for _ in range(3):
                before = bridges(watcher)
                send(producer, "killed", range(written + 1, written + 201))
                written += 200
                until(lambda seen=before: bridges(watcher) > seen or process.poll() is not None)
                assert process.poll() is None, process.stderr.read()
            os.kill(process.pid, signal.SIGKILL)
    watch(watcher, kafka_topics(where, settings), lambda: watcher.counts.rows.total() >= written)
    assert watcher.counts.records.total() == len(watcher.counts.records) == written


def bridges(watcher):
    """Rows that the journal's newest events tell of."""
    lines = watcher.journal.read_text().splitlines() if watcher.journal.exists() else []
    events = [json.loads(line)["finding"] for line in lines if line.endswith("}}")]
    return sum({event["finding_id"]: event["bridges"] for event in events}.values())


def until(reached):
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def watch(watcher, topics, reached):
    """The engine in this process over a topic, until so much is there."""
    stop = threading.Event()

    def wait():
        with contextlib.suppress(AssertionError):
            until(reached)
        stop.set()

    with watcher.engine() as engine:
        waiting = threading.Thread(target=wait)
        waiting.start()
        engine.run([KafkaInput(topics, "", watcher.messages.append)], stop)
        waiting.join()


def test_what_is_no_telemetry_is_in_quarantine_with_topic_partition_and_offset(cluster, watcher, tmp_path):
    producer, brokers = cluster
    damaged = f"{canonical_line(2)}{{broken\n{canonical_line(3)}"
    for body in (b"hello", None, canonical_line(1).encode(), damaged.encode()):
        producer.produce("mixed", body, partition=1)
    producer.flush(10)
    quarantine = watcher.state / "quarantine.ndjson"
    topics = kafka_topics(f"{brokers}/mixed", settings_file(tmp_path, "mixed"))
    watch(watcher, topics, lambda: watcher.counts.rows.total() == 3)
    watch(watcher, topics, lambda: True)
    assert [record for line in quarantine.read_text().splitlines() for record in json.loads(line)["shown"]] == [
        {"source": "kafka/mixed/1", "position": place, "reason": reason}
        for place, reason in [
            ("offset 0", "of no format that can be sent"),
            ("offset 1", "an empty message"),
            ("offset 3, line 3", "no JSON object that names a canonical table and a device"),
        ]
    ]
    assert watcher.counts.records.total() == len(watcher.counts.records) == 3


def committed(brokers, topic, group):
    """What the group's members told it, over all partitions."""
    asking = Consumer({"bootstrap.servers": brokers, "group.id": group})
    found = asking.committed([TopicPartition(topic, number) for number in range(PARTITIONS)], timeout=10)
    asking.close()
    return sum(max(partition.offset, 0) for partition in found)


class Member:
    """A member of a group who keeps all it takes, and counts it."""

    def __init__(self, brokers, topic, records):
        self.inbox, self.positions, self.records = Inbox(), Positions(), records
        settings = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500", "fetch.wait.max.ms": "20"}
        self.source = KafkaInput(Topics(brokers, [topic], "together", settings), "", lambda _: None)
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self.keep)

    def __enter__(self):
        self.source.start(self.inbox, self.positions)
        self.thread.start()
        return self

    def keep(self):
        while not self.leaving.is_set():
            for taken in self.inbox.take(0.05):
                for batch in taken.batches:
                    self.records.update(batch.rows["position"].to_pylist())
                self.positions.move(taken.positions)
                taken.done(True)  # noqa: FBT003

    @property
    def shares(self):
        return sum(place.ours for place in self.source._partitions.values())

    def __exit__(self, *_):
        self.leaving.set()
        self.thread.join()
        self.inbox.close()
        self.source.stop()


def test_members_of_a_group_share_the_partitions_and_each_message_counts_with_one(cluster):
    producer, brokers = cluster
    send(producer, "shared", range(1, 101), PARTITIONS)
    mine, others = Counter(), Counter()
    with Member(brokers, "shared", mine) as first:
        until(lambda: len(mine) == 100 and committed(brokers, "shared", "together") == 100)
        with Member(brokers, "shared", others) as second:
            until(lambda: first.shares and second.shares and first.shares + second.shares == PARTITIONS)
            send(producer, "shared", range(101, 201), PARTITIONS)
            until(lambda: len(mine) + len(others) == 200)
        send(producer, "shared", range(201, 301), PARTITIONS)
        until(lambda: len(mine) + len(others) >= 300)
        # What the group would not hear of while it was shared out anew, it is told again.
        until(lambda: committed(brokers, "shared", "together") == 300)
    assert others
    assert mine + others == Counter(range(1, 301))


def test_a_topic_that_was_made_anew_is_taken_from_its_start_and_told(cluster):
    producer, brokers = cluster
    send(producer, "anew", range(1, 11))
    positions, records, told = Positions({"kafka:anew/0": {"next": 900, "lines": 900}}), Counter(), []
    with consuming(brokers, "anew", "a", positions, told) as inbox:
        rows(inbox, 10, positions, records)
        send(producer, "anew", range(11, 21))
        rows(inbox, 10, positions, records)
    assert records == Counter(range(1, 21))
    assert told == [
        "kafka/anew/0: offset 900 is due, and the topic ends before it: it was made anew, and is taken whole."
    ]


def test_a_setting_on_which_the_reckoning_rests_is_kept_and_told(cluster):
    producer, brokers = cluster
    send(producer, "sticky", range(1, 11))
    positions, records, told = Positions(), Counter(), []
    with consuming(
        brokers, "sticky", "a", positions, told, partition_assignment_strategy="cooperative-sticky"
    ) as inbox:
        rows(inbox, 10, positions, records)
    assert records == Counter(range(1, 11))
    (line,) = told
    assert line.startswith("--kafka-config: partition.assignment.strategy stays range,roundrobin")


def test_nothing_is_taken_before_the_group_said_how_far_it_is(cluster, monkeypatch):
    producer, brokers = cluster
    send(producer, "asked", range(1, 11))
    positions, records, told, asked = Positions(), Counter(), [], KafkaInput._asked
    refused = iter([KafkaException(KafkaError(KafkaError._TIMED_OUT))])

    class Silent:
        """A consumer whose first question has no answer."""

        def __init__(self, consumer):
            self.consumer = consumer

        def committed(self, *arguments, **named):
            for fault in refused:
                raise fault
            return self.consumer.committed(*arguments, **named)

    monkeypatch.setattr(KafkaInput, "_asked", lambda self, consumer, parts: asked(self, Silent(consumer), parts))
    with consuming(brokers, "asked", "a", positions, told) as inbox:
        rows(inbox, 10, positions, records)
    assert records == Counter(range(1, 11))
    assert len(told) == 1


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
