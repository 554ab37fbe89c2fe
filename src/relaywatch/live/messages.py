"""Messages of a broker as pieces of input: those of one channel together, the damaged ones put aside."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from relaywatch.live.channels import ARROW, Channel, UnknownFormatError, joined, readable
from relaywatch.live.decoding import Decoded
from relaywatch.model.quarantine import Quarantined
from relaywatch.model.tables import Batch

Message = tuple[str, bytes | None]
"""Where a message stands in its channel, for the quarantine, and its body; None: it has none."""
_LINE: Final = "line "


def rows_of(messages: Sequence[Message], channel: Channel, device: str) -> Decoded:
    """The rows of a channel's messages. Lines of messages that follow each other are decoded together."""
    rows, held, form = _Rows(channel, device), list[tuple[str, bytes]](), ""
    for place, body in messages:
        content = readable(body, channel.source) if body else "an empty message"
        if isinstance(content, str):
            rows.put_aside(place, content)
            continue
        try:
            found = channel.format_of(content)
        except UnknownFormatError:
            rows.put_aside(place, "of no format that can be sent")
            continue
        if held and (found != form or form == ARROW):
            rows.decode(held, form)
            held = []
        form = found
        held.append((place, content))
    if held:
        rows.decode(held, form)
    return Decoded(rows.batches, rows.aside, rows.aside_total)


@dataclass(slots=True)
class _Rows:
    """What was decoded of a channel so far."""

    channel: Channel
    device: str
    batches: list[Batch] = field(default_factory=list)
    aside: list[Quarantined] = field(default_factory=list)
    aside_total: int = 0

    def put_aside(self, place: str, reason: str) -> None:
        """A whole message is damaged."""
        self.aside.append(Quarantined(self.channel.source, place, reason))
        self.aside_total += 1

    def decode(self, messages: Sequence[tuple[str, bytes]], form: str) -> None:
        """Messages of one format; an Arrow stream is one by itself."""
        content = messages[0][1] if form == ARROW else joined([body for _, body in messages])
        first = 1 if form == ARROW else self.channel.number(content)
        found = self.channel.rows(form, content, first, self.device)
        self.batches.extend(found.batches)
        self.aside.extend(_with_place(found.aside, messages, first))
        self.aside_total += found.aside_total


def _with_place(
    aside: Sequence[Quarantined], messages: Sequence[tuple[str, bytes]], first: int
) -> Iterator[Quarantined]:
    """Damaged records with the message that each stands in, in front of its place in the channel."""
    starts = [first]
    for _, body in messages if aside else ():
        starts.append(starts[-1] + body.count(b"\n") + (not body.endswith(b"\n")))
    for entry in aside:
        number = entry.position.removeprefix(_LINE)
        among = bisect_right(starts, int(number)) - 1 if number.isdecimal() else 0
        if len(messages) == 1 or (number.isdecimal() and 0 <= among < len(messages)):
            place, _ = messages[min(among, len(messages) - 1)]
            yield replace(entry, position=f"{place}, {entry.position}")
        else:
            yield entry
