"""One MELODI per host and database: whoever holds the lock keeps the books."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from melodi.errors import ConfigError, StoreError


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that keeps the books."""

    pid: int
    api_url: str | None
    """Where it answers; None: it has no API (`melodi run`)."""


class AlreadyOwned(ConfigError):
    """Another MELODI keeps the books of this host in this database."""

    def __init__(self, owner: Owner | None, *, host: str) -> None:
        who = "another melodi" if owner is None else f"the melodi with pid {owner.pid}"
        super().__init__(
            f"{who} already records for host {host!r} in this database; "
            "stop it, or set another host or MELODI_DATABASE__URL"
        )
        self.owner = owner


@contextlib.contextmanager
def owning(folder: Path, *, host: str, database_url: str, api_url: str | None) -> Iterator[None]:
    """Hold the lock while the context lasts; the kernel frees it however the process ends.

    Raises AlreadyOwned with the owner's pid, and StoreError where `folder` cannot be written.
    """
    name = hashlib.sha256(f"{host}\0{database_url}".encode()).hexdigest()[:16]
    path = folder / f"owner-{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}; make {folder} writable, "
            "or set MELODI_DATABASE__URL to a place of your own"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyOwned(_read(descriptor), host=host) from None
        text = json.dumps(asdict(Owner(os.getpid(), api_url)))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Owner | None:
    """Who wrote the lock; None while they are still writing."""
    try:
        return Owner(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None
