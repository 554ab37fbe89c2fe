"""Packet captures as flows: pcap and pcapng, from a sensor or from PCAPdroid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Final

from relaywatch.model.tables import Batch
from relaywatch.sources.capture_magic import is_capture
from relaywatch.sources.reading import Head, Reading

OPEN_FLOWS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Pcap:
    """Reads pcap and pcapng captures, plain or PCAPdroid's.

    Flows as FlowTable makes them; where both ends are local and nobody named the device, each end gets a row.
    PCAPdroid's captures have one device (reading.device, else the file's stem), uids and, in pcapng, packages.
    Without root PCAPdroid cannot see inbound sessions; the file does not say how it was made.
    A record is a packet. Frames that are not IP (ARP and the like) carry no flow: the tally counts them.
    open_flows: flows open at a time; beyond it the longest silent one is given up.
    """

    name: ClassVar[str] = "pcap"
    open_flows: int = OPEN_FLOWS

    @staticmethod
    def fits(head: Head) -> bool:
        """By the magic numbers of pcap and pcapng alone."""
        return is_capture(head.content)

    def read(self, path: Path, stream: BinaryIO, reading: Reading) -> Iterator[Batch]:
        """FLOWS, VOLUMES, SIGNALS (CAPTURE) and, of PCAPdroid's captures, INVENTORY.

        Raises SourceError where the stream is no capture, or cannot be read on: what came before is given first.
        """
        # Loading the compiled kernels takes half a second, which only those who read a capture should pay.
        from relaywatch.sources.capture_reading import read_capture

        yield from read_capture(path, stream, reading, self.open_flows)
