"""What all inputs share: a thread of their own, an end, and a failure that reaches the engine."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

from relaywatch.live.inbox import Inbox
from relaywatch.live.positions import Positions

Tell = Callable[[str], None]
"""Takes a message for whoever runs the watcher, from any thread."""
LONGEST_STOP_S: Final = 10.0


class Input(Protocol):
    """One way by which telemetry comes in."""

    def start(self, inbox: Inbox, positions: Positions) -> None:
        """Begin after these positions; called once. Raises RelaywatchError where that is not possible."""
        ...

    def stop(self) -> None:
        """Take nothing more, and return when the thread is gone. The inbox is closed by then."""
        ...

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        ...


class Threaded(ABC):
    """An input that runs in one thread until it ends or is stopped."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def run(self, inbox: Inbox, positions: Positions) -> None:
        """Take in until the end, or `stopping` is set, or put() says that the engine takes no more."""

    def start(self, inbox: Inbox, positions: Positions) -> None:
        """As Input.start."""
        mine = Positions(positions.all())  # the engine moves its own on while the thread reads
        self._thread = threading.Thread(target=self._guarded, args=(inbox, mine), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """As Input.stop."""
        self.stopping.set()
        if self._thread is not None:
            self._thread.join(LONGEST_STOP_S)

    @property
    def ended(self) -> bool:
        """As Input.ended."""
        return self._ended.is_set()

    def _guarded(self, inbox: Inbox, positions: Positions) -> None:
        try:
            self.run(inbox, positions)
        except BaseException as fault:  # the engine's thread raises it again
            inbox.fail(fault)
        finally:
            self._ended.set()
