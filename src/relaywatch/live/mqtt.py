"""Telemetry by MQTT 3.1.1 with QoS 1: a message is acknowledged once it is on disk.

The broker sends again what it has no acknowledgement of, and marks it. Such a message is dropped where one of the same
topic and content is among the last that were taken.
"""

from __future__ import annotations

import queue
import ssl
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from relaywatch.live.addresses import Subscription
from relaywatch.live.channels import Channel
from relaywatch.live.inbox import Inbox
from relaywatch.live.inputs import Tell, Threaded
from relaywatch.live.messages import rows_of
from relaywatch.live.positions import LIMITS, Positions
from relaywatch.live.taking import LiveError, Position, Taken

HELD: Final = 10_000
"""Messages between the network and the inbox; then the network waits."""
TOPICS: Final = 10_000
_LINGER_S: Final = 0.05


class MqttInput(Threaded):
    """One subscription."""

    def __init__(self, subscription: Subscription, device: str, tell: Tell) -> None:
        super().__init__()
        self._subscription, self._device, self._tell = subscription, device, tell
        self._arrived: queue.Queue[paho.MQTTMessage] = queue.Queue(HELD)
        self._channels: dict[str, Channel] = {}
        self._seen: dict[str, bool] = {}
        self.repeated = 0
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=subscription.client,
            clean_session=False,
            protocol=paho.MQTTv311,
            manual_ack=True,
        )
        if subscription.user:
            client.username_pw_set(subscription.user, subscription.password or None)
        if subscription.encrypted:
            client.tls_set_context(ssl.create_default_context())
        client.on_connect, client.on_message = self._connected, self._message
        client.on_disconnect = self._disconnected
        self._client = client

    def run(self, inbox: Inbox, positions: Positions) -> None:
        """Take until stopped; the connection is made again whenever it is lost."""
        self.resume(positions)
        where = f"{self._subscription.host}:{self._subscription.port}"
        try:
            self._client.connect(self._subscription.host, self._subscription.port)
        except OSError as fault:
            raise LiveError(f"MQTT: {where}: cannot connect: {fault}. Check the address.") from fault
        self._client.loop_start()
        try:
            while not self.stopping.is_set():
                messages = self._gathered()
                if messages and not self.take(messages, inbox):
                    break
        finally:
            self._client.disconnect()
            self._client.loop_stop()

    def resume(self, positions: Positions) -> None:
        """Go on after these positions."""
        self._channels = {topic: Channel(f"mqtt/{topic}", held["lines"]) for topic, held in positions.of("mqtt")}
        self._seen = dict.fromkeys((digest for digest, _ in positions.of("mqtt-seen")), True)

    def _connected(self, client: paho.Client, _: Any, __: Any, reason: Any, ___: Any) -> None:  # noqa: ANN401
        if reason.is_failure:
            self._tell(f"MQTT: the broker refuses: {reason}")
            return
        client.subscribe(self._subscription.topics, qos=1)

    def _disconnected(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:  # noqa: ANN401
        if not self.stopping.is_set():
            self._tell(f"MQTT: connection lost ({reason}); trying again")

    def _message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:  # noqa: ANN401
        while not self.stopping.is_set():
            try:
                self._arrived.put(message, timeout=_LINGER_S)
            except queue.Full:
                continue
            return

    def _gathered(self) -> list[paho.MQTTMessage]:
        """What came, after a short wait for more."""
        try:
            found = [self._arrived.get(timeout=_LINGER_S)]
        except queue.Empty:
            return []
        time.sleep(_LINGER_S)
        while len(found) < HELD and not self._arrived.empty():
            found.append(self._arrived.get())
        return found

    def take(self, messages: Sequence[paho.MQTTMessage], inbox: Inbox) -> bool:
        """Hand over what came, a piece a topic; False: the engine takes no more."""
        by_topic: dict[str, list[tuple[str, paho.MQTTMessage]]] = {}
        for message in messages:
            digest = blake2b(message.topic.encode() + b"\0" + message.payload, digest_size=12).hexdigest()
            if message.dup and digest in self._seen:
                self.repeated += 1
                if self._seen[digest]:  # else the acknowledgement of the one before is this one's too
                    self._client.ack(message.mid, message.qos)
                continue
            if message.topic not in self._channels and len(self._channels) >= TOPICS:
                raise LiveError(f"MQTT: messages of more than {TOPICS} topics. Subscribe to fewer.")
            by_topic.setdefault(message.topic, []).append((digest, message))
            self._seen[digest] = False
            if len(self._seen) > LIMITS["mqtt-seen"]:
                del self._seen[next(iter(self._seen))]
        return all(inbox.put(self._piece(topic, some)) for topic, some in by_topic.items())

    def _piece(self, topic: str, messages: Sequence[tuple[str, paho.MQTTMessage]]) -> Taken:
        channel = self._channels.setdefault(topic, Channel(f"mqtt/{topic}"))
        rows = rows_of([("message", bytes(message.payload)) for _, message in messages], channel, self._device)
        positions: dict[str, Position | None] = {f"mqtt-seen:{digest}": {} for digest, _ in messages}
        positions[f"mqtt:{topic}"] = {"lines": channel.lines}
        done = self._acknowledger(messages)
        return Taken(rows.batches, positions, rows.aside, rows.aside_total, channel.form, done)

    def _acknowledger(self, messages: Sequence[tuple[str, paho.MQTTMessage]]) -> Callable[[bool], None]:
        def done(on_disk: bool) -> None:  # noqa: FBT001 - a callback's one argument
            for digest, message in messages if on_disk else ():
                if digest in self._seen:
                    self._seen[digest] = True
                self._client.ack(message.mid, message.qos)

        return done
