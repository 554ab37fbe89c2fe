"""Perfetto traces with Android's network packets: which app's socket sent or received each packet, and when.

Format: a Trace of TracePackets (protocol buffers), as `perfetto` on a phone writes it from the data source
android.network_packets (Android 14 and later); plain, or with packets compressed by the tracing service.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

from relaywatch.model.tables import Batch
from relaywatch.sources.perfetto_messages import is_trace
from relaywatch.sources.reading import Head, Reading

OPEN_FLOWS: Final = 1 << 17
"""A phone has 65,535 ports of each protocol."""


@dataclass(frozen=True, slots=True)
class Perfetto:
    """Reads one trace, of one phone: reading.device, else the file's stem.

    Flows as FlowTable makes them of packets without addresses: one interface, protocol, pair of ports and uid. Who
    opened a TCP connection is observed by its SYN; remote addresses are not in the trace. A record is a TracePacket.
    open_flows: flows open at a time; beyond it the longest silent one is given up.
    """

    name: ClassVar[str] = "perfetto"
    open_flows: int = OPEN_FLOWS

    @staticmethod
    def fits(head: Head) -> bool:
        """Whole packets of the tracing service, at the start."""
        return is_trace(head.content)

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """FLOWS, VOLUMES, SIGNALS (CAPTURE, LISTENER, LOGGING_GAP) and INVENTORY (the trace's package list).

        Raises SourceError where the stream cannot be read on: what came before is given first.
        """
        # Loading the compiled kernels takes half a second, which only those who read a trace should pay.
        from relaywatch.sources.perfetto_reading import read_trace

        yield from read_trace(path, stream, reading, self.open_flows)
