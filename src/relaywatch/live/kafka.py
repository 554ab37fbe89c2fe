"""Telemetry from Kafka topics. How far they were taken is in the spool; the group's own offsets follow it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from relaywatch.live.addresses import Topics
from relaywatch.live.channels import Channel
from relaywatch.live.inbox import Inbox
from relaywatch.live.inputs import Tell, Threaded
from relaywatch.live.messages import Message, rows_of
from relaywatch.live.positions import Positions
from relaywatch.live.taking import LiveError, Taken

MESSAGES: Final = 10_000
_WAIT_S: Final = 0.1
_ASK_S: Final = 10.0
_FIXED: Final = {"enable.auto.commit": False, "enable.auto.offset.store": False, "auto.offset.reset": "earliest"}
_OWN: Final = {"queued.max.messages.kbytes": 65_536}


@dataclass(slots=True)
class _Partition:
    """How far one partition was handed over. next: the offset that is due; fresh: nothing came since its assignment."""

    channel: Channel
    next: int
    fresh: bool = True


class KafkaInput(Threaded):
    """The topics of one cluster."""

    def __init__(self, topics: Topics, device: str, tell: Tell) -> None:
        """Raises LiveError where librdkafka does not take the settings."""
        super().__init__()
        self._topics, self._device, self._tell = topics, device, tell
        settings = {**_OWN, **topics.more, **_FIXED, "bootstrap.servers": topics.brokers, "group.id": topics.group}
        try:
            self._consumer = Consumer({**settings, "error_cb": self._failing})
        except KafkaException as fault:
            raise LiveError(f"Kafka: {fault.args[0].str()}. See --kafka-config.") from fault
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._changed = threading.Condition()
        self._kept: dict[tuple[str, int], int] = {}
        self._handed = 0
        self._told: set[int] = set()

    def run(self, inbox: Inbox, positions: Positions) -> None:
        """Take until stopped."""
        self._partitions = {_partition(key): _known(key, held) for key, held in positions.of("kafka")}
        self._consumer.subscribe(list(self._topics.topics), on_assign=self._assigned, on_revoke=self._revoked)
        try:
            while not self.stopping.is_set():
                messages = self._consumer.consume(MESSAGES, _WAIT_S)
                self._commit(wait=False)
                if not self._take(messages, inbox):
                    break
        finally:
            self._commit(wait=True)
            self._consumer.close()

    def _take(self, messages: Sequence[Any], inbox: Inbox) -> bool:
        """Hand over what came, a piece a partition; False: the engine takes no more."""
        found: dict[tuple[str, int], list[Any]] = {}
        for message in messages:
            if (error := message.error()) is not None:
                self._failing(error)
            else:
                found.setdefault((message.topic(), message.partition()), []).append(message)
        for key, some in found.items():
            place = self._partitions.get(key)
            if place is None:
                continue
            due = [message for message in some if message.offset() >= place.next]
            if due and not inbox.put(self._piece(key, place, due)):
                return False
        return True

    def _piece(self, key: tuple[str, int], place: _Partition, messages: Sequence[Any]) -> Taken:
        if place.fresh and 0 <= place.next < messages[0].offset():
            gone = f"offsets {place.next} to {messages[0].offset() - 1} are no longer there"
            self._tell(f"{place.channel.source}: {gone}: raise the topic's retention.")
        bodies: list[Message] = [(f"offset {message.offset()}", message.value()) for message in messages]
        rows = rows_of(bodies, place.channel, self._device)
        place.next, place.fresh = messages[-1].offset() + 1, False
        position = {f"kafka:{key[0]}/{key[1]}": {"next": place.next, "lines": place.channel.lines}}
        with self._changed:
            self._handed += 1
        offset = place.next

        def done(on_disk: bool) -> None:  # noqa: FBT001 - a callback's one argument
            with self._changed:
                self._handed -= 1
                if on_disk:
                    self._kept[key] = offset
                self._changed.notify_all()

        return Taken(rows.batches, position, rows.aside, rows.aside_total, place.channel.form, done)

    def _commit(self, *, wait: bool) -> None:
        """Tell the group what is on disk. It is only a hint for others: the spool decides."""
        with self._changed:
            kept, self._kept = self._kept, {}
        if kept:
            offsets = [TopicPartition(topic, number, offset) for (topic, number), offset in kept.items()]
            try:
                if wait:
                    self._consumer.commit(offsets=offsets, asynchronous=False)
                else:
                    self._consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as fault:
                self._failing(fault.args[0])

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Go on where this spool stands, or where another member of the group has come to since."""
        committed = {(p.topic, p.partition): p.offset for p in consumer.committed(partitions, timeout=_ASK_S)}
        for partition in partitions:
            key = (partition.topic, partition.partition)
            place = self._partitions.setdefault(key, _Partition(Channel(f"kafka/{key[0]}/{key[1]}"), -1))
            place.next, place.fresh = max(place.next, committed.get(key, -1)), True
            partition.offset = place.next if place.next >= 0 else OFFSET_BEGINNING
        consumer.assign(partitions)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Whoever gets the partitions goes on after what is on disk here."""
        del consumer, partitions
        until = time.monotonic() + _ASK_S
        with self._changed:
            while self._handed and not self.stopping.is_set() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
        self._commit(wait=True)

    def _failing(self, error: KafkaError) -> None:
        """Tell each kind of trouble once; librdkafka tries again by itself, except after a fatal error."""
        if error.code() == KafkaError._PARTITION_EOF:
            return
        if error.fatal():
            raise LiveError(f"Kafka: {error.str()}.")
        if error.code() not in self._told:
            self._told.add(error.code())
            self._tell(f"Kafka: {error.str()}")


def _partition(key: str) -> tuple[str, int]:
    topic, _, number = key.rpartition("/")
    return topic, int(number)


def _known(key: str, held: Mapping[str, Any]) -> _Partition:
    return _Partition(Channel(f"kafka/{key}", held["lines"]), held["next"])
