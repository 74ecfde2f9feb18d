"""A pass over meters that are read one by one."""

import pickle

import pytest

from collectors.base import Domain, Kind, Measure, Reading
from collectors.errors import ReadFailed
from collectors.meters import Told, read_each


class Meter:
    """One that notes what is asked of it, and fails where it has nothing to say."""

    def __init__(self, name: str, energy_uj: int | None, notes: list[str]) -> None:
        self.domain = Domain(
            name=name, kind=Kind.CPU, scope="package", source="test", measure=Measure.COUNTER
        )
        self._energy_uj = energy_uj
        self._notes = notes

    def ask(self) -> Told | ReadFailed:
        self._notes.append(f"ask {self.domain.name}")
        if self._energy_uj is None:
            return ReadFailed(f"{self.domain.name} is mute")
        return 10, self._energy_uj, 20

    def reading(self, told: Told) -> Reading:
        self._notes.append(f"reading {self.domain.name}")
        return Reading(self.domain.name, 15, 5, told[1])


def test_what_was_told_becomes_readings_once_somebody_asks() -> None:
    """Who reads only asks the devices, one after the other; failures are known at once."""
    notes: list[str] = []
    found = read_each([Meter("a", 1, notes), Meter("b", None, notes), Meter("c", 3, notes)])
    assert [one.domain for one in found.failures] == ["b"]
    assert len(found.values) == 2
    assert notes == ["ask a", "ask b", "ask c"]
    assert [one.energy_uj for one in found.values] == [1, 3]
    assert notes[3:] == ["reading a", "reading c"]
    assert found.values[-1] == Reading("c", 15, 5, 3)
    assert found.values[:1] == (Reading("a", 15, 5, 1),)


def test_another_process_is_told_readings_and_no_meters() -> None:
    """There it has none to make them."""
    found = read_each([Meter("a", 1, []), Meter("c", 3, [])])
    told = pickle.loads(pickle.dumps(found))
    assert told.values == (Reading("a", 15, 5, 1), Reading("c", 15, 5, 3))


def test_a_pass_in_which_all_are_mute_fails() -> None:
    """With the first one's reason."""
    notes: list[str] = []
    with pytest.raises(ReadFailed, match="a is mute"):
        read_each([Meter("a", None, notes), Meter("b", None, notes)])
