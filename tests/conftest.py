"""What holds for all tests: none of them fails because a machine is slow."""

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SLOW_FIRST = ("melodi/api", "packaging", "docs", "melodi/daemon", "melodi/cli", "melodi/analysis")
"""Those that wait for processes; begun last, they would be waited for alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order folders, and leave each one's tests as they are."""
    places = {f"tests/{folder}/": place for place, folder in enumerate(SLOW_FIRST)}

    def place(item: pytest.Item) -> int:
        return next(
            (n for folder, n in places.items() if item.nodeid.startswith(folder)), len(places)
        )

    items.sort(key=place)
