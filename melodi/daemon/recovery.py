"""What a daemon that was killed left open is closed before the next one begins."""

from pathlib import Path

import structlog

from melodi.store.records import RecordStore
from melodi.store.spool import left_behind

log = structlog.get_logger(__name__)


def recover(store: RecordStore, folder: Path, *, host: str) -> None:
    """Give every request of `host` that a dead daemon knew of exactly one final record.

    Those with a provisional row keep what was measured; those known only by the begin lines in
    `folder` become `interrupted`. May be called again where it was itself cut short.
    """
    try:
        with left_behind(folder) as begun:
            closed = store.close_unfinished(host, [one.interrupted() for one in begun])
    except OSError as error:
        log.error("begin_lines_not_read", folder=str(folder), reason=str(error))
        closed = store.close_unfinished(host, ())
    if closed:
        log.warning("unfinished_records_closed", count=closed)
