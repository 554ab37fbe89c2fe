"""What every test shares: properties are not timed, and no test reads or writes what the user keeps."""

import sys

import pytest
from hypothesis import settings

from relaywatch import cli

settings.register_profile("relaywatch", deadline=None)
settings.load_profile("relaywatch")


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory, monkeypatch):
    """Where a command keeps findings for `explain`: a folder of the test's own."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    return state


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: its status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["relaywatch", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return call
