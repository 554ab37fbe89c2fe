"""The command that measures detection on labelled traffic: evaluate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from relaywatch.cli.shell import AsJson, Output, app
from relaywatch.model.errors import RelaywatchError
from relaywatch.outputs.text import printable


@app.command(name="evaluate")
def evaluate_command(
    labs: Annotated[list[Path], typer.Argument(help="Folders with traces/ and truth/", show_default=False)],
    *,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for evaluation.md, evaluation.json and the plots")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the detection on labelled traffic, beside published rules, with whole families of programs held out.

    Needs the extra: pip install 'relaywatch[evaluate]'. Exit status: 0 done, 2 unusable input.
    """
    from rich.markdown import Markdown

    try:
        from relaywatch.evaluation.plots import write_plots
        from relaywatch.evaluation.report import as_json as result_json
        from relaywatch.evaluation.report import markdown
        from relaywatch.evaluation.run import evaluate
    except ModuleNotFoundError as missing:
        raise RelaywatchError(f"evaluate needs {missing.name}: pip install 'relaywatch[evaluate]'.") from missing
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)  # before the work, so that a wrong path costs nothing
    with Console(stderr=True).status("Evaluating") as status:
        result = evaluate(labs, lambda step: status.update(f"Evaluating: {printable(step)}"))
    text, document = markdown(result), result_json(result)
    if folder is not None:
        (folder / "evaluation.md").write_text(text, encoding="utf-8")
        (folder / "evaluation.json").write_text(document, encoding="utf-8")
        write_plots(result, folder)
    if as_json:
        sys.stdout.write(document + "\n")
    else:
        Output().print(Markdown(text))
