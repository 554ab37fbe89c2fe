"""One Spark session for all tests of fleets: starting one takes longer than most of them."""

import importlib.util
import shutil

import pytest

SPARK = importlib.util.find_spec("pyspark") is not None and importlib.util.find_spec("pandas") is not None


@pytest.fixture(scope="session")
def spark():
    if not SPARK:
        pytest.skip("pyspark is not installed: pip install 'relaywatch[spark]'")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed")
    from relaywatch.fleet.session import session

    running = session("local[2]", {"spark.sql.shuffle.partitions": "4"})
    yield running
    running.stop()
