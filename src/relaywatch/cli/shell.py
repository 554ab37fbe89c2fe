"""What all commands share: the application, exit statuses, options, progress, and errors told in a line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from typer.core import TyperGroup

from relaywatch.model.errors import RelaywatchError
from relaywatch.outputs.text import printable


class Exit(IntEnum):
    """Exit status of every command."""

    NOTHING_FOUND = 0
    FINDINGS = 1
    UNUSABLE = 2
    PARTIAL = 3
    DEFECT = 70
    INTERRUPTED = 130
    READER_GONE = 141


class Commands(TyperGroup):
    """Commands that tell a user's mistake themselves: typer would end a broken pipe as if there were findings."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  typer's own signature
        """Run a command."""
        with plain_errors():
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()


LONGEST_MESSAGE: Final = 4_000
app = typer.Typer(
    cls=Commands,
    help="Find Android apps that relay other people's traffic, in telemetry you already have.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Paths = Annotated[list[Path], typer.Argument(help="Files or folders; formats are told by content", show_default=False)]
SettingsFile = Annotated[Path | None, typer.Option("--settings", help="TOML file with a [settings] table")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="One setting, Name=value; may be repeated")]
AsJson = Annotated[bool, typer.Option("--json", help="NDJSON on standard output")]
AsOcsf = Annotated[bool, typer.Option("--ocsf", help="OCSF Detection Findings as NDJSON on standard output")]
HtmlPage = Annotated[Path | None, typer.Option("--html", help="Write one self-contained page")]
ExceptionsFile = Annotated[Path | None, typer.Option("--exceptions", help="TOML file of exceptions")]
Asn = Annotated[Path | None, typer.Option("--asn", help="Database of autonomous systems in MaxMind's format")]
Indicators = Annotated[
    Path | None, typer.Option("--indicators", help="TOML file of the site's own proxyware indicators")
]


class Output(Console):
    """Standard output, whose reader may go away: rich would end as if there were findings."""

    def on_broken_pipe(self) -> None:
        """End as any other program whose reader goes away."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Bar:
    """Progress on standard error, where that is a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def reading(self, total_bytes: int) -> None:
        """Reading begins."""
        self._task = self._progress.add_task("Reading", total=total_bytes)

    def read(self, stored_bytes: int) -> None:
        """So much more is done."""
        if self._task is not None:
            self._progress.advance(self._task, stored_bytes)

    def judging(self, shards: int) -> None:
        """Judging begins."""
        self._parts("Judging", shards)

    def judged(self) -> None:
        """One more part is judged."""
        self.read(1)

    def writing(self, parts: int) -> None:
        """Writing begins."""
        self._parts("Writing", parts)

    def written(self) -> None:
        """One more part is written."""
        self.read(1)

    def counting(self, parts: int) -> None:
        """Counting begins."""
        self._parts("Counting", parts)

    def _parts(self, what: str, parts: int) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._progress.columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._task = self._progress.add_task(what, total=parts)


@contextmanager
def plain_errors() -> Iterator[None]:
    """A user's mistake is told in a line, never as a traceback."""
    try:
        yield
    except RelaywatchError as error:
        tell(str(error))
        raise SystemExit(Exit.UNUSABLE) from None
    except KeyboardInterrupt:
        tell("interrupted; nothing was kept")
        raise SystemExit(Exit.INTERRUPTED) from None
    except OSError as error:
        if error.filename is None:
            # Standard output is gone or full: what it still holds must not fail again when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(Exit.READER_GONE) from None
        tell(f"{error.filename or 'output'}: {error.strerror or error}.")
        raise SystemExit(Exit.UNUSABLE) from None
    except SystemError as error:
        if not isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise
        # An interrupt that meets a compiled kernel comes out of it in this dress.
        tell("interrupted; nothing was kept")
        raise SystemExit(Exit.INTERRUPTED) from None


def tell(message: str) -> None:
    """A line on standard error; file names in it come from a suspect phone."""
    sys.stderr.write(f"relaywatch: {printable(message, limit=LONGEST_MESSAGE)}\n")
