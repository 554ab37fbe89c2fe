"""Messages of a broker as pieces of input: those of one channel together, the damaged ones put aside."""

from __future__ import annotations

from collections.abc import Sequence

from relaywatch.live.channels import ARROW, Channel, UnknownFormatError, joined, readable
from relaywatch.live.decoding import Decoded
from relaywatch.model.quarantine import Quarantined
from relaywatch.model.tables import Batch

Message = tuple[str, bytes | None]
"""Where a message stands in its channel, for the quarantine, and its body; None: it has none."""


def rows_of(messages: Sequence[Message], channel: Channel, device: str) -> Decoded:
    """The rows of a channel's messages. Lines of messages that follow each other are decoded together."""
    batches: list[Batch] = []
    aside: list[Quarantined] = []
    total, held = 0, list[bytes]()

    def decode(bodies: list[bytes], form: str) -> None:
        nonlocal total
        content = joined(bodies) if form != ARROW else bodies[0]
        first = channel.number(content) if form != ARROW else 1
        found = channel.rows(form, content, first, device)
        batches.extend(found.batches)
        aside.extend(found.aside)
        total += found.aside_total

    for place, body in messages:
        content = readable(body, channel.source) if body else "an empty message"
        if isinstance(content, bytes):
            before = channel.form
            try:
                form = channel.format_of(content)
            except UnknownFormatError:
                content = "of no format that can be sent"
            else:
                if held and form != before:
                    decode(held, before)
                    held = []
                if form == ARROW:
                    decode([content], form)
                else:
                    held.append(content)
                continue
        aside.append(Quarantined(channel.source, place, content))
        total += 1
    if held:
        decode(held, channel.form)
    return Decoded(batches, aside, total)
