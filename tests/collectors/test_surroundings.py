"""Where the process runs is told by what is there to be seen."""

from pathlib import Path

import pytest

from collectors.surroundings import surroundings


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv"])
def test_a_container_is_known_by_the_mark_of_its_engine(tmp_path: Path, mark: str) -> None:
    """Docker leaves one file, Podman another; a machine of its own has neither."""
    assert not surroundings(tmp_path).container
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).touch()
    assert surroundings(tmp_path).container


@pytest.mark.parametrize(("flags", "virtual"), [("fpu hypervisor sse", True), ("fpu sse", False)])
def test_a_virtual_machine_is_known_by_its_processor(
    tmp_path: Path, flags: str, virtual: bool
) -> None:
    """Hypervisors set a flag of the CPU."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"model name\t: some\nflags\t\t: {flags}\n")
    assert surroundings(tmp_path).virtual_machine is virtual


def test_where_nothing_is_told_nothing_is_assumed(tmp_path: Path) -> None:
    """No file at all is no error."""
    found = surroundings(tmp_path)
    assert (found.container, found.virtual_machine) == (False, False)
