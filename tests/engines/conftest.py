"""One real server for all tests here."""

from collections.abc import Iterator

import pytest
from real_engine import Engine, real_engine


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with real_engine(tmp_path_factory.mktemp("engine")) as one:
        yield one
