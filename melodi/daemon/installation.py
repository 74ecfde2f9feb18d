"""This installation's secret, which keys the hashes of passing prompts."""

import os
import secrets
import tempfile
from pathlib import Path

from melodi.errors import StoreError

KEY_BYTES = 32


def installation_key(folder: Path) -> bytes:
    """The 32 bytes in `folder`/installation.key, made at the first start.

    Raises StoreError where they cannot be read or written, or are not 32.
    """
    path = folder / "installation.key"
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"cannot read or write {path}: {error.strerror}; make it yours to read and write, "
            "or set XDG_DATA_HOME to another folder"
        ) from None
    if len(key) != KEY_BYTES:
        raise StoreError(
            f"{path} holds {len(key)} bytes where a key has {KEY_BYTES}; restore it from a backup, "
            "or delete it: a new one is made, and hashes of prompts compare no more with older ones"
        )
    return key


def _make(path: Path) -> None:
    """Make the key; whoever else makes it meanwhile is first, and nobody reads half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".installation-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()
