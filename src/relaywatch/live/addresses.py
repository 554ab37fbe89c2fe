"""Where telemetry comes from over a network, as the user writes it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from relaywatch.live.taking import LiveError

_SECRET_BYTES: Final = 4096
_CONFIG_BYTES: Final = 65_536
_GROUP: Final = "relaywatch"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and the token that clients must show; empty: none."""

    host: str
    port: int
    token: str = ""


@dataclass(frozen=True, slots=True)
class Topics:
    """What to take from Kafka: topics of a cluster, as a member of a group. more: further settings of librdkafka."""

    brokers: str
    topics: Sequence[str]
    group: str
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to take by MQTT. client: the name under which the broker keeps what was not acknowledged."""

    host: str
    port: int
    topics: str
    client: str
    user: str = ""
    password: str = ""
    encrypted: bool = False


def http_address(text: str, token_file: Path | None) -> Address:
    """HOST:PORT, [IPv6]:PORT or PORT; the latter on 127.0.0.1. Raises LiveError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65_535:
        raise LiveError(f"--http {text}: no address. Give HOST:PORT, as 127.0.0.1:8686.")
    return Address(host, int(port), _secret(token_file) if token_file else "")


def kafka_topics(text: str, config_file: Path | None) -> Topics:
    """BROKER[,BROKER]/TOPIC[,TOPIC]; the file has librdkafka's settings, name=value by the line. Raises LiveError."""
    brokers, _, topics = text.partition("/")
    names = [topic for topic in topics.split(",") if topic]
    if not brokers or not names:
        raise LiveError(f"--kafka {text}: no topic. Give BROKER:PORT/TOPIC, as kafka-1:9092/flows.")
    more = _settings(config_file) if config_file else {}
    return Topics(brokers, names, more.pop("group.id", _GROUP), more)


def mqtt_subscription(text: str, password_file: Path | None, state: Path) -> Subscription:
    """mqtt://[USER@]HOST[:PORT]/TOPICS, or mqtts:// over TLS; the broker knows each state folder by itself."""
    try:
        url = urlsplit(text, allow_fragments=False)
        port = url.port
    except ValueError as fault:
        raise LiveError(f"--mqtt {text}: no address ({fault}).") from fault
    topics = unquote(url.path.removeprefix("/"))
    if url.scheme not in ("mqtt", "mqtts") or not url.hostname or not topics or url.password is not None:
        raise LiveError(
            f"--mqtt {text}: no address. Give mqtt://HOST/TOPICS, as mqtt://broker/telemetry/#, and a password by "
            "--mqtt-password-file."
        )
    encrypted = url.scheme == "mqtts"
    where = f"{socket.gethostname()}:{state.resolve()}".encode()
    client = f"relaywatch-{blake2b(where, digest_size=6).hexdigest()}"
    password = _secret(password_file) if password_file else ""
    port = port or (8883 if encrypted else 1883)
    return Subscription(url.hostname, port, topics, client, unquote(url.username or ""), password, encrypted)


def _text(path: Path, most_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise LiveError(f"{path}: more than {most_bytes} bytes. Is this the right file?")
        return content.decode()
    except (OSError, UnicodeDecodeError) as fault:
        raise LiveError(f"{path}: cannot be read: {fault}.") from fault


def _secret(path: Path) -> str:
    """The first line of a file. Raises LiveError where it is empty."""
    secret = _text(path, _SECRET_BYTES).partition("\n")[0].strip()
    if not secret:
        raise LiveError(f"{path}: the first line is empty. Put the secret there.")
    return secret


def _settings(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_text(path, _CONFIG_BYTES).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise LiveError(f"{path}, line {number}: no name=value.")
        found[name.strip()] = value.strip()
    return found
