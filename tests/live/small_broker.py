"""As much of an MQTT 3.1.1 broker as the tests need: one subscriber, QoS 1, what is not acknowledged is sent again."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, DISCONNECT = 1, 2, 3, 4, 8, 9, 14


class SmallBroker:
    """Listens on a port of its own. unacknowledged: by packet number, in order of sending."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.unacknowledged: dict[int, tuple[str, bytes]] = {}
        self.changed = threading.Condition()
        self._subscriber: socket.socket | None = None
        self._number = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message to the subscriber, now or when there is one."""
        with self.changed:
            self._number += 1
            self.unacknowledged[self._number] = (topic, payload)
            if self._subscriber is not None:
                self._send(self._number, again=False)

    def close(self) -> None:
        """End; a connection is cut off."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    def _send(self, number: int, *, again: bool) -> None:
        topic, payload = self.unacknowledged[number]
        body = struct.pack(">H", len(topic)) + topic.encode() + struct.pack(">H", number) + payload
        assert self._subscriber is not None
        with suppress(OSError):  # the subscriber has just gone: it gets the message when it comes again
            self._subscriber.sendall(_packet(PUBLISH, body, flags=0x02 | (0x08 if again else 0)))

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)
            with self.changed:
                self._subscriber = None

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        met = set(self.unacknowledged) if self._number else set()
        while True:
            first = stream.read(1)
            if not first:
                return
            length = shift = 0
            while True:
                (octet,) = stream.read(1)
                length |= (octet & 0x7F) << shift
                shift += 7
                if not octet & 0x80:
                    break
            body, kind = stream.read(length), first[0] >> 4
            with self.changed:
                if kind == CONNECT:
                    connection.sendall(_packet(CONNACK, b"\1\0"))
                elif kind == SUBSCRIBE:
                    connection.sendall(_packet(SUBACK, body[:2] + b"\1"))
                    self._subscriber = connection
                    for number in list(self.unacknowledged):
                        self._send(number, again=number in met)
                elif kind == PUBACK:
                    self.unacknowledged.pop(struct.unpack(">H", body)[0], None)
                    self.changed.notify_all()
                elif kind == DISCONNECT:
                    return


def _packet(kind: int, body: bytes, *, flags: int = 0) -> bytes:
    length, left = b"", len(body)
    while True:
        left, octet = divmod(left, 128)
        length += bytes([octet | (0x80 if left else 0)])
        if not left:
            return bytes([kind << 4 | flags]) + length + body
