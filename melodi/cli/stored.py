"""The database, as verbs that only look at it open it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from melodi.errors import StoreError

if TYPE_CHECKING:
    from melodi.store.records import RecordStore


@contextmanager
def opened(url: str) -> Iterator["RecordStore"]:
    """The records at `url`; StoreError where there is nothing that this version can read."""
    from melodi.store.database import open_engine
    from melodi.store.records import RecordStore

    must_be_current(url)
    engine = open_engine(url)
    try:
        yield RecordStore(engine)
    finally:
        engine.dispose()


def must_be_current(url: str) -> None:
    """StoreError where the tables at `url` are not those of this version."""
    from melodi.store.migrate import SchemaState, check

    match check(url):
        case SchemaState.EMPTY:
            raise StoreError("nothing is recorded yet; record something: melodi run, melodi serve")
        case SchemaState.BEHIND:
            raise StoreError("the database is older than this version; run: melodi db upgrade")
        case SchemaState.AHEAD:
            raise StoreError("the database is newer than this version; upgrade MELODI")
