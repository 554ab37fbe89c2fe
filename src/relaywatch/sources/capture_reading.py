"""One capture read from its first byte to its last: framing, decoding, flows, names, rows, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from relaywatch.model.tables import Batch
from relaywatch.sources import capture_framing
from relaywatch.sources.capture_columns import Fault, Records
from relaywatch.sources.capture_decode import FRAGMENT, FRAGMENTS, LINKS, decode
from relaywatch.sources.capture_flows import Finished, FlowTable, Sight
from relaywatch.sources.capture_framing import APPLICATIONS, Application, Frames
from relaywatch.sources.capture_names import HostNames
from relaywatch.sources.capture_rows import DEVICES, Rows
from relaywatch.sources.reading import Reading

_REASONS: Final = {
    Fault.CUT_LINK: "ends within its link-layer header.",
    Fault.UNKNOWN_LINK: f"has a link type that cannot be read; these can: {', '.join(map(str, sorted(LINKS)))}.",
    Fault.CUT_IP: "ends within its IP header; capture with a larger snaplen.",
    Fault.BAD_IP: "has no valid IP header.",
    Fault.CUT_TRANSPORT: "ends within its TCP or UDP header; capture with a larger snaplen.",
    Fault.BAD_TRANSPORT: "has a TCP or UDP header that does not fit its length.",
    Fault.NO_TIME: "has no time between the years 1970 and 9999.",
    Fault.BAD_BLOCK: "claims more bytes than its block holds.",
    Fault.NO_INTERFACE: "belongs to an interface that the file does not describe.",
}
NOT_IP: Final = "a frame that is not IP (ARP and the like) carries no flow"
_SUFFIXES: Final = frozenset({".pcap", ".pcapng", ".cap", ".dmp", ".gz", ".zst"})


def read_capture(path: Path, stream: BinaryIO, reading: Reading, open_flows: int) -> Iterator[Batch]:
    """Give the canonical rows of a capture, as Pcap.read; at most `open_flows` flows are open at a time."""
    frames = Frames(path, stream, reading.quarantine)
    table = FlowTable(open_flows)
    capture = _Capture(frames, reading)
    fragments = np.zeros(FRAGMENTS, FRAGMENT)
    for part in frames:
        marked = decode(part.octets, part.packets, fragments)
        capture.notice(part, marked)
        for finished in table.feed(part.octets, part.packets, part.first, capture.sight):
            capture.rows.names.learn(part.octets, part.packets, finished.events)
            yield from capture.batches(finished)
    for finished in table.end():
        yield from capture.batches(finished)
    yield from capture.closing()
    if frames.damage is not None:
        raise frames.damage


class _Capture:
    """What is known of the capture being read."""

    def __init__(self, frames: Frames, reading: Reading) -> None:
        self.frames = frames
        self.reading = reading
        self.span: tuple[int, int] | None = None
        self.sight = Sight.DEVICE if reading.device else Sight.NETWORK
        names = HostNames(one_device=bool(reading.device))
        self.rows = Rows(frames.path, reading.device, names, applications=frames.applications)

    def notice(self, part: capture_framing.Batch, marked: int) -> None:
        """Count the batch, put its damaged packets aside, and recognize PCAPdroid."""
        packets = part.packets
        if (marked or self.frames.pcapdroid) and self.sight != Sight.PCAPDROID:
            self.sight = Sight.PCAPDROID
            self.rows.device = self.reading.device or stem(self.frames.path)
            self.rows.clock = "device"
            self.rows.names.one_device = True
        self._quarantine(packets, part.first)
        good = packets[packets["fault"] == Fault.NONE]
        self.reading.tally.met(len(packets))
        self.reading.tally.with_rows += len(good)  # each is in the row of its flow
        if len(good):
            start, end = int(good["time"].min()), int(good["time"].max())
            self.span = (start, end) if self.span is None else (min(self.span[0], start), max(self.span[1], end))
        if marked:
            self._learn_labels(part)

    def _quarantine(self, packets: Records, first: int) -> None:
        source = str(self.frames.path)
        for index in np.flatnonzero(packets["fault"] > Fault.NOT_IP).tolist():
            reason = _REASONS[Fault(int(packets["fault"][index]))]
            self.reading.quarantine.add(source, f"packet {first + index}", f"the packet {reason}")
        self.reading.tally.left(NOT_IP, int(np.count_nonzero(packets["fault"] == Fault.NOT_IP)))

    def _learn_labels(self, part: capture_framing.Batch) -> None:
        """App names from the trailers, once per uid."""
        trailed = np.flatnonzero(part.packets["label_at"] > 0)
        uids, places = np.unique(part.packets["uid"][trailed], return_index=True)
        known = self.frames.applications
        for uid, index in zip(uids.tolist(), trailed[places].tolist(), strict=True):
            if uid in known or len(known) >= APPLICATIONS:
                continue
            at = int(part.packets["data"][index]) + int(part.packets["label_at"][index])
            label = part.octets[at : at + 20].tobytes().partition(b"\0")[0].decode("utf-8", "ignore")
            known[uid] = Application(uid, "", label, part.first + index)

    def batches(self, finished: Finished) -> Iterator[Batch]:
        """Give what left the table."""
        if len(finished.volumes):
            yield self.rows.volumes(finished.volumes)
        if len(finished.flows):
            yield self.rows.flows(finished.flows)

    def closing(self) -> Iterator[Batch]:
        """Give what can be said only at the end."""
        rows = self.rows
        if len(rows.devices) >= DEVICES:
            reason = f"more than {DEVICES} local addresses: not all have a row that says when they were watched."
            self.frames.put_aside("", reason)
        self.reading.tally.met(self.frames.aside)
        if self.span is not None and rows.devices:
            yield rows.captures(*self.span)
        if self.sight == Sight.PCAPDROID and any(uid >= 0 for uid in rows.applications):
            yield rows.inventory()


def stem(path: Path) -> str:
    """Give the file's name without the suffixes of captures and compression."""
    name = path.name
    while (suffix := Path(name).suffix).lower() in _SUFFIXES:
        name = name[: -len(suffix)]
    return name or path.name
