"""A watcher with the counting judgement as a process of its own: STATE PATH, until it is killed."""

import sys
import threading
from pathlib import Path

from counting import Counting

from relaywatch.live.engine import Ears, Engine, Pace
from relaywatch.live.files import Files, Looking

if __name__ == "__main__":
    ears = Ears(lambda _: None, lambda _: None, ())
    with Engine(Path(sys.argv[1]), Counting, Pace(0.0, 0.02, 0.0), ears) as engine:
        engine.run([Files([Path(sys.argv[2])], Looking(poll_s=0.005), lambda _: None)], threading.Event())
