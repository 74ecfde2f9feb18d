"""Begin lines: what outlives the process, and what is recovered from it."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from waiting import PATIENCE_SECONDS

from melodi.energy.record import EnergyRecord, Quality, Status
from melodi.store import spool as spool_module
from melodi.store.spool import Begun, Spool, left_behind, spool_folder


def line(name: str, **changes: object) -> Begun:
    """A request that began."""
    plain: dict[str, object] = {
        "id": name,
        "host": "here",
        "backend": "b",
        "backend_kind": "vllm",
        "wall_ns": 1_767_225_600_000_001_000,
    }
    return Begun(**(plain | changes))  # type: ignore[arg-type]


def die(spool: Spool) -> None:
    """End as a killed process does: the files stay, the locks are freed."""
    for segment in spool._segments:
        segment.close()
    spool._segments.clear()


def left(folder: Path) -> list[str]:
    """The ids that a next start would find; nothing is removed."""
    try:
        with left_behind(folder) as begun:
            names = sorted(one.id for one in begun)
            raise InterruptedError
    except InterruptedError:
        return names


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef"))),
        max_size=12,
    ),
    slack=st.integers(0, 300),
)
def test_what_began_and_has_no_row_outlives_the_process(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[set[str], set[str]]],
    slack: int,
) -> None:
    """However lines come, are forgotten and are moved, none that is still needed is missing."""
    folder = tmp_path_factory.mktemp("spool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "SLACK_BYTES", slack)
        spool = Spool(folder)
        needed: set[str] = set()
        for number, (began, stored) in enumerate(steps):
            spool.write([line(f"{name}{number}") for name in began])
            needed |= {f"{name}{number}" for name in began}
            gone = {name for name in needed if name[0] in stored}
            spool.forget(gone)
            needed -= gone
            assert len(list(folder.iterdir())) <= 1
        spool.write([])
        assert spool.records == len(needed)
        die(spool)
    assert needed <= set(left(folder))


def test_a_line_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    """Nothing waits in a buffer of the process."""
    spool = Spool(tmp_path)
    spool.write([line("a")])
    (path,) = tmp_path.iterdir()
    assert b'"id":"a"' in path.read_bytes()
    spool.close()


def test_an_interrupted_request_keeps_what_was_known_of_it(tmp_path: Path) -> None:
    """Its record is final, says why it has no energy, and bears the labels it was sent with."""
    spool = Spool(tmp_path)
    spool.write([line("a", model="m", campaign="c", tags={"k": "v"}, streamed=True, attempt=2)])
    die(spool)
    with left_behind(tmp_path) as begun:
        (record,) = (one.interrupted() for one in begun)
    assert record == EnergyRecord(
        id="a",
        provisional=False,
        host="here",
        backend="b",
        backend_kind="vllm",
        model="m",
        campaign="c",
        tags={"k": "v"},
        streamed=True,
        attempt=2,
        status=Status.INTERRUPTED,
        started_at=record.started_at,
        quality=Quality.NONE,
        quality_reasons=("daemon_stopped",),
    )
    assert record.started_at.isoformat() == "2026-01-01T00:00:00.000001+00:00"


def test_the_files_stay_bounded_while_requests_come_and_go(tmp_path: Path) -> None:
    """What is forgotten is cut away once it outweighs what is not, and no file is left over."""
    spool = Spool(tmp_path)
    kept = line("kept")
    spool.write([kept])
    longest = 0
    for number in range(100):
        lines = [line(f"{number}-{k}", model="m" * 500) for k in range(50)]
        spool.write(lines)
        spool.forget([one.id for one in lines])
        longest = max(longest, sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert longest < 2 * spool_module.SLACK_BYTES
    assert len(list(tmp_path.iterdir())) == 1
    die(spool)
    assert "kept" in left(tmp_path)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_takes_no_other_with_it(tmp_path: Path, cut: int) -> None:
    """After a power cut the last line may be half there: it is passed over, and said."""
    spool = Spool(tmp_path)
    spool.write([line("a"), line("b")])
    die(spool)
    (path,) = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - 1 - cut)
    with capture_logs() as logs:
        assert left(tmp_path) == ["a"]
    assert [log["event"] for log in logs] == ["torn_spool_line"]


def test_the_spool_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    """Another process that holds its file is neither read nor removed until it is killed."""
    code = (
        "import sys, time, pathlib; from melodi.store.spool import Spool, Begun;"
        "s = Spool(pathlib.Path(sys.argv[1]));"
        "s.write([Begun(id='a', host='h', backend='b', backend_kind='k', wall_ns=0)]);"
        "print('written', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    with left_behind(tmp_path) as begun:
        assert begun == []
    process.kill()
    process.communicate()
    with left_behind(tmp_path) as begun:
        assert [one.id for one in begun] == ["a"]
    assert not list(tmp_path.iterdir())


def test_a_recovery_that_is_cut_short_can_be_done_again(tmp_path: Path) -> None:
    """The files go only after what was read from them is safe."""
    spool = Spool(tmp_path)
    spool.write([line("a")])
    die(spool)
    assert left(tmp_path) == left(tmp_path) == ["a"]


def test_a_spool_that_cannot_be_written_says_so_and_comes_back(tmp_path: Path) -> None:
    """Meanwhile nothing is raised; afterwards the lines of that time are written too."""
    folder = tmp_path / "spool"
    folder.touch()
    spool = Spool(folder)
    with capture_logs() as logs:
        spool.write([line("a")])
        spool.write([line("b")])
    assert "File exists" in (spool.fault or "")
    assert [log["event"] for log in logs] == ["spool_failing"]
    folder.unlink()
    spool.write([])
    assert spool.fault is None
    die(spool)
    assert left(folder) == ["a", "b"]


def test_a_disk_that_fills_up_tears_no_later_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write that failed half-way all goes into a new file."""
    spool = Spool(tmp_path)
    spool.write([line("a")])
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(os, "write", half)
        spool.write([line("b")])
    assert "No space left" in (spool.fault or "")
    spool.write([line("c")])
    assert spool.fault is None
    die(spool)
    assert left(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("stored", [True, False])
def test_closing_leaves_a_file_only_for_what_has_no_row(tmp_path: Path, stored: bool) -> None:
    """An orderly end cleans up; a database that stayed away leaves the lines to the next start."""
    spool = Spool(tmp_path)
    spool.write([line("a")])
    spool.forget(["a"] if stored else [])
    with capture_logs():
        spool.close()
    assert left(tmp_path) == ([] if stored else ["a"])
    assert len(list(tmp_path.iterdir())) == (not stored)


def test_any_thread_may_forget(tmp_path: Path) -> None:
    """What the writer's thread forgets while lines are written is gone at the next write."""
    spool = Spool(tmp_path)
    names = [str(number) for number in range(500)]
    thread = threading.Thread(target=lambda: [spool.forget([name]) for name in names])
    spool.write([line(name) for name in names])
    thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while spool.records:
        assert time.monotonic() < deadline
        spool.write([])
    thread.join()
    spool.close()
    assert not list(tmp_path.iterdir())


def test_each_host_and_database_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """A new password leaves the database the same; another host or database does not."""
    base = "postgresql://me:{}@db/melodi"
    one = spool_folder(tmp_path, host="a", database_url=base.format("old"))
    assert one == spool_folder(tmp_path, host="a", database_url=base.format("new"))
    others = [("b", base.format("old")), ("a", "postgresql://me:old@db/other")]
    for host, url in others:
        assert spool_folder(tmp_path, host=host, database_url=url) != one
