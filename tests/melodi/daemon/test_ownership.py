"""One MELODI per host and database."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from melodi.daemon.ownership import AlreadyOwned, owning
from melodi.errors import StoreError

URL = "sqlite:///x.db"


def test_a_second_one_is_refused_with_the_owners_pid(tmp_path: Path) -> None:
    """And may begin once the first has ended."""
    with (
        owning(tmp_path, host="h", database_url=URL, api_url="http://a"),
        pytest.raises(AlreadyOwned, match=f"pid {os.getpid()} .*stop it") as refused,
        owning(tmp_path, host="h", database_url=URL, api_url=None),
    ):
        pass
    assert refused.value.owner.api_url == "http://a"
    with owning(tmp_path, host="h", database_url=URL, api_url=None):
        pass


def test_another_host_or_database_is_another_lock(tmp_path: Path) -> None:
    """Two daemons of one machine may record under two names."""
    places = [("h", URL), ("g", URL), ("h", "sqlite:///y.db")]
    with ExitStack() as stack:
        for host, url in places:
            stack.enter_context(owning(tmp_path, host=host, database_url=url, api_url=None))
        for host, url in places:
            with (
                pytest.raises(AlreadyOwned, match=f"for host {host!r}"),
                owning(tmp_path, host=host, database_url=url, api_url=None),
            ):
                pass


def test_a_killed_owner_leaves_no_lock_behind(tmp_path: Path) -> None:
    """The kernel frees it; the file that stays says nothing."""
    code = (
        "import sys, time, pathlib; from melodi.daemon.ownership import owning\n"
        f"with owning(pathlib.Path({str(tmp_path)!r}), host='h', database_url={URL!r},"
        " api_url=None):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with (
        pytest.raises(AlreadyOwned, match=f"pid {process.pid}"),
        owning(tmp_path, host="h", database_url=URL, api_url=None),
    ):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with owning(tmp_path, host="h", database_url=URL, api_url=None):
        pass


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    """With the setting that mends it."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="MELODI_DATABASE__URL"),
        owning(tmp_path / "file", host="h", database_url=URL, api_url=None),
    ):
        pass
