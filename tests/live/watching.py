"""A watcher with the counting judgement as a process of its own, until it is killed.

STATE PATH for a file; STATE BROKERS/TOPIC SETTINGS for a topic, with the file of Kafka's settings.
"""

import sys
import threading
from pathlib import Path

from counting import Counting

from relaywatch.live.addresses import kafka_topics
from relaywatch.live.engine import Ears, Engine, Pace
from relaywatch.live.files import Files, Looking


def source(where: str, settings: Path | None = None):
    if settings is None:
        return Files([Path(where)], Looking(poll_s=0.005), lambda _: None)
    from relaywatch.live.kafka import KafkaInput

    return KafkaInput(kafka_topics(where, settings), "", lambda _: None)


if __name__ == "__main__":
    ears = Ears(lambda _: None, lambda _: None, ())
    with Engine(Path(sys.argv[1]), Counting, Pace(0.0, 0.02, 0.0), ears) as engine:
        engine.run([source(sys.argv[2], *map(Path, sys.argv[3:]))], threading.Event())
