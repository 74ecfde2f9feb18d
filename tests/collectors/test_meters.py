"""A pass over meters that are read one by one."""

import pytest

from collectors.base import Domain, Kind, Measure, Reading
from collectors.errors import ReadFailed
from collectors.meters import read_each


class Meter:
    """One that notes what is asked of it, and fails where it has nothing to say."""

    def __init__(self, name: str, energy_uj: int | None, notes: list[str]) -> None:
        self.domain = Domain(
            name=name, kind=Kind.CPU, scope="package", source="test", measure=Measure.COUNTER
        )
        self._energy_uj = energy_uj
        self._notes = notes

    def ask(self) -> int | None:
        self._notes.append(f"ask {self.domain.name}")
        return self._energy_uj

    def reading(self, told: int | None) -> Reading:
        self._notes.append(f"reading {self.domain.name}")
        if told is None:
            raise ReadFailed(f"{self.domain.name} is mute")
        return Reading(self.domain.name, 0, 0, told)


def test_all_are_asked_before_any_answer_is_looked_at() -> None:
    """So that they are read within a short time, whatever becomes of the answers."""
    notes: list[str] = []
    found = read_each([Meter("a", 1, notes), Meter("b", None, notes), Meter("c", 3, notes)])
    assert [one.energy_uj for one in found.values] == [1, 3]
    assert [one.domain for one in found.failures] == ["b"]
    assert notes == ["ask a", "ask b", "ask c", "reading a", "reading b", "reading c"]


def test_a_pass_in_which_all_are_mute_fails() -> None:
    """With the first one's reason."""
    notes: list[str] = []
    with pytest.raises(ReadFailed, match="a is mute"):
        read_each([Meter("a", None, notes), Meter("b", None, notes)])
