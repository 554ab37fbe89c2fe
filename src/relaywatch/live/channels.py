"""What is sent in pieces under one name: each piece a body by itself, its lines numbered on from the one before."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from relaywatch.live.decoding import BY_BODY, READERS, Decoded, decoded, decoded_lines, recognised
from relaywatch.live.taking import LiveError
from relaywatch.model.errors import SourceError
from relaywatch.sources.compression import content_of
from relaywatch.sources.reading import HEAD_BYTES, Head

CONTENT_BYTES: Final = 256 << 20
"""A body's content once it is unpacked."""
ARROW: Final = "canonical-arrow"


class UnknownFormatError(LiveError):
    """A body is of no format that can be sent."""


class TooLargeError(LiveError):
    """A body's content is larger than CONTENT_BYTES."""


def unpacked(body: bytes, source: str) -> bytes:
    """The body decompressed, and JSON of any layout as lines. Raises SourceError, TooLargeError."""
    if body.startswith(b"\xff\xff\xff\xff"):
        return body  # an Arrow stream, which is not compressed
    with content_of(io.BytesIO(body), Path(source)) as content:
        found = content.read(CONTENT_BYTES + 1)
        content.read(1)  # says what is damaged
    if len(found) > CONTENT_BYTES:
        raise TooLargeError(f"{source}: a body of more than {CONTENT_BYTES} bytes once it is unpacked.")
    return found


@dataclass(slots=True)
class Channel:
    """One sender's bodies. source: the name that their rows get; lines: lines that were numbered so far."""

    source: str
    lines: int = 0
    form: str = field(default="", compare=False)

    def format_of(self, content: bytes) -> str:
        """The format of a body, most likely that of the one before. Raises UnknownFormatError."""
        if self.form and READERS[self.form].fits(Head(Path(self.source), content[:HEAD_BYTES])):
            return self.form
        form = recognised(content, self.source)
        if form != ARROW and form not in BY_BODY:
            raise UnknownFormatError(
                f"{self.source}: {form or 'a body of no known format'} cannot be sent. Formats that can: "
                f"{', '.join(sorted({ARROW, *BY_BODY}))}."
            )
        self.form = form
        return form

    def number(self, content: bytes) -> int:
        """Number the lines of a body on; the first one's number."""
        first = self.lines + 1
        self.lines += content.count(b"\n") + (not content.endswith(b"\n"))
        return first

    def rows(self, form: str, content: bytes, first_line: int, device: str) -> Decoded:
        """The rows of a body."""
        if form == ARROW:
            return decoded(form, self.source, io.BytesIO(content), device)
        return decoded_lines(form, self.source, content, first_line, device)


def joined(bodies: list[bytes]) -> bytes:
    """Bodies of lines as one."""
    return b"".join(body if body.endswith(b"\n") else body + b"\n" for body in bodies)


def readable(body: bytes, source: str) -> bytes | str:
    """A message's content, or why it cannot be unpacked."""
    try:
        return unpacked(body, source)
    except (SourceError, TooLargeError) as fault:
        return str(fault)
