"""MQTT: a message is the broker's until it is on disk, and counts once."""

import contextlib
from collections import Counter

import paho.mqtt.client as paho
import pytest
from small_broker import SmallBroker
from telemetry import canonical_line

from relaywatch.live.addresses import Subscription
from relaywatch.live.inbox import Inbox
from relaywatch.live.mqtt import MqttInput
from relaywatch.live.positions import Positions
from relaywatch.live.taking import LiveError


@pytest.fixture
def broker():
    """A broker that is closed in the end."""
    served = SmallBroker()
    yield served
    served.close()


def publish(broker, numbers):
    for number in numbers:
        broker.publish("telemetry/a", canonical_line(number).encode())


@contextlib.contextmanager
def subscribed(port, positions):
    inbox, messages = Inbox(), []
    source = MqttInput(Subscription("127.0.0.1", port, "telemetry/#", "relaywatch-test"), "", messages.append)
    source.start(inbox, positions)
    try:
        yield inbox
    finally:
        inbox.close()
        source.stop()


def records(inbox, wanted, positions, *, keep=True):
    found = Counter()
    while found.total() < wanted:
        pieces = inbox.take(20.0)
        assert pieces, f"{found.total()} of {wanted} rows came"
        for taken in pieces:
            for batch in taken.batches:
                found.update(batch.rows["position"].to_pylist())
            if keep:
                positions.move(taken.positions)
            taken.done(keep)
    return found


def all_acknowledged(broker):
    with broker.changed:
        return broker.changed.wait_for(lambda: not broker.unacknowledged, 10)


def test_what_was_not_on_disk_comes_again_and_what_was_does_not(broker):
    positions = Positions()
    publish(broker, range(1, 6))
    with subscribed(broker.port, positions) as inbox:
        assert records(inbox, 5, positions) == Counter(range(1, 6))
        assert all_acknowledged(broker)
        publish(broker, range(6, 9))
        assert records(inbox, 3, positions, keep=False) == Counter(range(6, 9))
    with subscribed(broker.port, positions) as inbox:
        assert records(inbox, 3, positions) == Counter(range(6, 9))
        publish(broker, [9])
        assert records(inbox, 1, positions) == Counter([9])
        assert all_acknowledged(broker)
    assert dict(positions.of("mqtt"))["telemetry/a"] == {"lines": 9}


def test_an_acknowledgement_that_was_lost_costs_nothing(broker):
    positions = Positions()
    publish(broker, [1])
    with subscribed(broker.port, positions) as inbox:
        (taken,) = inbox.take(20.0)
        positions.move(taken.positions)  # on disk, and the watcher is gone before it can say so
    publish(broker, [2])
    with subscribed(broker.port, positions) as inbox:
        assert records(inbox, 1, positions) == Counter([2])
        assert all_acknowledged(broker)


def message(number, *, again=False):
    found = paho.MQTTMessage(mid=number, topic=b"t")
    found.payload, found.qos, found.dup = canonical_line(number).encode(), 1, again
    return found


@pytest.mark.parametrize("restart", [True, False])
def test_a_message_sent_again_after_it_was_on_disk_is_dropped_and_acknowledged(restart, monkeypatch):
    positions, inbox, acknowledged = Positions(), Inbox(), []
    monkeypatch.setattr(paho.Client, "ack", lambda _, mid, __: acknowledged.append(mid))

    def fresh():
        source = MqttInput(Subscription("127.0.0.1", 1, "#", "x"), "", lambda _: None)
        source.resume(positions)
        return source

    source = fresh()
    source.take([message(1), message(2)], inbox)
    assert not acknowledged
    source.take([message(1, again=True)], inbox)
    assert not acknowledged
    assert records(inbox, 2, positions) == Counter([1, 2])
    assert acknowledged == [1, 2]
    if restart:
        source = fresh()
    source.take([message(1, again=True), message(3, again=True)], inbox)
    assert records(inbox, 1, positions) == Counter([3])
    assert acknowledged == [1, 2, 1, 3]


def test_no_broker_is_told():
    source = MqttInput(Subscription("127.0.0.1", 1, "#", "x"), "", lambda _: None)
    with pytest.raises(LiveError, match="cannot connect"):
        source.run(Inbox(), Positions())
