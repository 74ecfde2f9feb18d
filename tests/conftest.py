"""What holds for all tests: none of them fails because a machine is slow."""

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SLOW_FIRST = ("packaging", "docs", "melodi/daemon", "melodi/cli", "melodi/analysis", "melodi/api")
"""Those that wait for processes; begun last, they would be waited for alone."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order folders, and leave each one's tests as they are."""
    folders = [config.rootpath / "tests" / one for one in SLOW_FIRST]

    def place(item: pytest.Item) -> int:
        return next(
            (n for n, folder in enumerate(folders) if item.path.is_relative_to(folder)),
            len(folders),
        )

    items.sort(key=place)
