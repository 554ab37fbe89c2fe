"""Telemetry from Kafka topics. How far they were taken is in the spool; the group's own offsets follow it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
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
_AGAIN_S: Final = 1.0
_FIXED: Final = {
    "auto.offset.reset": "error",
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "group.protocol": "classic",
    "partition.assignment.strategy": "range,roundrobin",
}
"""What the reckoning of offsets rests on."""
_OWN: Final = {"log_level": "2", "queued.max.messages.kbytes": "65536"}
"""librdkafka's log repeats on standard error what is told here already."""


@dataclass(slots=True)
class _Partition:
    """How far one partition was handed over, as the offset after it; -1: not known.

    next: handed over; kept: on disk; told: the group knows; missing: due, and not in the topic. ours: assigned to us.
    """

    channel: Channel
    next: int = -1
    kept: int = -1
    told: int = -1
    missing: int = -1
    ours: bool = False

    @property
    def start(self) -> int:
        """Where Kafka is to begin."""
        return self.next if self.next >= 0 else OFFSET_BEGINNING


class KafkaInput(Threaded):
    """The topics of one cluster."""

    def __init__(self, topics: Topics, device: str, tell: Tell) -> None:
        """Raises LiveError where librdkafka does not take the settings."""
        super().__init__()
        self._topics, self._device, self._tell = topics, device, tell
        settings = {**_OWN, **topics.more, **_FIXED, "bootstrap.servers": topics.brokers, "group.id": topics.group}
        for name in sorted(_FIXED.keys() & topics.more.keys()):
            if topics.more[name] != _FIXED[name]:
                tell(f"--kafka-config: {name} stays {_FIXED[name]}: what was taken is reckoned by it.")
        try:
            self._consumer = Consumer({**settings, "error_cb": self._failing, "on_commit": self._committed})
        except KafkaException as fault:
            raise LiveError(f"Kafka: {fault.args[0].str()}. See --kafka-config.") from fault
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._changed = threading.Condition()
        self._handed = 0
        self._committing = False
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
        missing: set[tuple[str, int]] = set()
        for message in messages:
            if (error := message.error()) is None:
                found.setdefault((message.topic(), message.partition()), []).append(message)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                missing.add((message.topic(), message.partition()))
            else:
                self._failing(error)
        for key, some in found.items():
            place = self._partitions.get(key)
            if place is None:
                continue
            due = [message for message in some if message.offset() >= place.next]
            if due and not inbox.put(self._piece(key, place, due)):
                return False
        if missing:
            self._from_start(missing)
        return True

    def _piece(self, key: tuple[str, int], place: _Partition, messages: Sequence[Any]) -> Taken:
        if place.missing >= 0:
            self._tell_missing(place, messages[0].offset())
        bodies: list[Message] = [(f"offset {message.offset()}", message.value()) for message in messages]
        rows = rows_of(bodies, place.channel, self._device)
        place.next = offset = messages[-1].offset() + 1
        position = {f"kafka:{key[0]}/{key[1]}": {"next": place.next, "lines": place.channel.lines}}
        with self._changed:
            self._handed += 1

        def done(on_disk: bool) -> None:  # noqa: FBT001 - a callback's one argument
            with self._changed:
                self._handed -= 1
                if on_disk:
                    place.kept = offset
                self._changed.notify_all()

        return Taken(rows.batches, position, rows.aside, rows.aside_total, place.channel.form, done)

    def _from_start(self, missing: Collection[tuple[str, int]]) -> None:
        """The offset that is due is not in these partitions: go on with the first one that is."""
        for key in missing:
            place = self._partitions[key]
            place.next, place.missing = -1, place.next
        ours = [(key, place) for key, place in self._partitions.items() if place.ours]
        self._consumer.assign([TopicPartition(*key, place.start) for key, place in ours])

    def _tell_missing(self, place: _Partition, first: int) -> None:
        """Say why the offset that was due is not there, now that the topic's first one is known."""
        if first > place.missing:
            why = f"offsets {place.missing} to {first - 1} are no longer there: raise the topic's retention."
        else:
            why = f"offset {place.missing} is due, and the topic ends before it: it was made anew, and is taken whole."
            with self._changed:
                place.kept = place.told = -1
        self._tell(f"{place.channel.source}: {why}")
        place.missing = -1

    def _commit(self, *, wait: bool) -> None:
        """Tell the group what is on disk. It is only a hint for others: the spool decides."""
        with self._changed:
            ours = {key: place for key, place in self._partitions.items() if place.ours}
            kept = {key: place.kept for key, place in ours.items() if place.kept != place.told}
        if not kept or (self._committing and not wait):
            return
        offsets = [TopicPartition(topic, number, offset) for (topic, number), offset in kept.items()]
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
                self._committing = True
        except KafkaException as fault:
            self._failing(fault.args[0])

    def _committed(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """The broker's answer. What it refused, as it may while the group is shared out anew, is told it again."""
        self._committing = False
        for partition in partitions:
            place = self._partitions.get((partition.topic, partition.partition))
            if error is None and partition.error is None and place is not None:
                place.told = partition.offset

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Go on where this spool stands, or where another member of the group has come to since."""
        committed = {(p.topic, p.partition): p.offset for p in self._asked(consumer, partitions)}
        for partition in partitions:
            key = (partition.topic, partition.partition)
            place = self._partitions.setdefault(key, _Partition(Channel(f"kafka/{key[0]}/{key[1]}")))
            place.told = max(committed.get(key, -1), -1)
            place.next, place.ours = max(place.next, place.told), True
            place.kept = max(place.kept, place.told)
            partition.offset = place.start
        consumer.assign(partitions)

    def _asked(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """What the group committed. Without an answer nothing is taken: another member may have come further."""
        while not self.stopping.is_set():
            try:
                found = consumer.committed(partitions, timeout=_ASK_S)
                fault = next((partition.error for partition in found if partition.error is not None), None)
            except KafkaException as refusal:
                fault = refusal.args[0]
            if fault is None:
                return found
            self._failing(fault)
            self.stopping.wait(_AGAIN_S)
        return []

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Whoever gets the partitions goes on after what is on disk here."""
        del consumer
        until = time.monotonic() + _ASK_S
        with self._changed:
            while self._handed and not self.stopping.is_set() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
        self._commit(wait=True)
        for partition in partitions:
            if (place := self._partitions.get((partition.topic, partition.partition))) is not None:
                place.ours = False

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
    return _Partition(Channel(f"kafka/{key}", held["lines"]), held["next"], held["next"])
