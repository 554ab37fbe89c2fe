"""What every test shares: properties are not timed, and no test reads or writes what the user keeps."""

import pytest
from hypothesis import settings

settings.register_profile("relaywatch", deadline=None)
settings.load_profile("relaywatch")


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory, monkeypatch):
    """Where a command keeps findings for `explain`: a folder of the test's own."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    return state
