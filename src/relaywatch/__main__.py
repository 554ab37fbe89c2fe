"""The program's start, `relaywatch` and `python -m relaywatch`: imports nothing that an interrupt could tear."""

import gc
import sys

SEARCHED_AFTER = 50_000
"""New objects after which Python searches for circles that nothing refers to. Findings are hundreds of thousands of
objects without a circle: searched every 700, as is Python's default, making them takes twice the time and more."""


def main() -> None:
    """Run the command line; an interrupt while it is still being loaded ends it as any later one does."""
    gc.disable()
    try:
        from relaywatch.cli import main as run
        from relaywatch.cli.shell import tell
        from relaywatch.model.compilation import before_compiling
    except KeyboardInterrupt:
        sys.stderr.write("relaywatch: interrupted; nothing was kept\n")
        sys.exit(130)
    gc.freeze()  # what is loaded stays to the end: it need not be searched
    gc.set_threshold(SEARCHED_AFTER)
    gc.enable()
    before_compiling(lambda: tell("compiling for this machine, which takes up to a minute; later runs have it ready"))
    run()


if __name__ == "__main__":
    main()
