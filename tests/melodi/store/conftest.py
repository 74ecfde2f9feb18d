"""An empty store for each test, on every database."""

from store_fixtures import *  # noqa: F403
