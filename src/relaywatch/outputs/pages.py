"""What all pages share: every text goes through `printable` and then autoescape, and a file that cannot be is told."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from relaywatch.model.errors import RelaywatchError
from relaywatch.outputs.text import printable

LONGEST_TEXT: Final = 2_000


def page_environment() -> Environment:
    """A Jinja environment over the templates; what is printed and is not markup of our own is neutralised."""
    return Environment(
        loader=PackageLoader("relaywatch.outputs"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    return printable(value, limit=LONGEST_TEXT) if isinstance(value, str) and not isinstance(value, Markup) else value


def write_page(path: Path, text: str) -> None:
    """Write the text as UTF-8, line ends as they are. Raises RelaywatchError where that cannot be."""
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise RelaywatchError(
            f"{path}: the report cannot be written: {error.strerror}. Choose another path."
        ) from error
