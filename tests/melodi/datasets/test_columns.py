"""Every field of a record is described, with the type that the database gives it."""

from dataclasses import fields

from melodi.datasets.columns import COLUMNS
from melodi.energy.record import EnergyRecord
from melodi.store.schema import requests

TYPES = {
    "TEXT": {"string"},
    "JSON": {"json"},
    "BOOLEAN": {"bool"},
    "INTEGER": {"int32"},
    "BIGINT": {"int64"},
    "DOUBLE": {"float64"},
    "Instant": {"timestamp[us, tz=UTC]"},
}


def test_every_field_of_a_record_is_described_in_its_order() -> None:
    """None is left out, none is invented, and each has a sentence."""
    assert list(COLUMNS) == [field.name for field in fields(EnergyRecord)]
    assert all(column.description.endswith(".") for column in COLUMNS.values())


def test_the_documented_types_are_those_of_the_database() -> None:
    """A column that becomes wider or narrower in one place only is found here."""
    for name, column in COLUMNS.items():
        stored = requests.c[name].type
        word = "Instant" if type(stored).__name__ == "Instant" else str(stored)
        assert column.arrow_type in TYPES[word], name


def test_a_name_that_carries_a_unit_has_that_unit() -> None:
    """Joules are J, seconds are s, watts are W."""
    units = {"_joules": "J", "_seconds": "s", "_watts": "W", "_mhz": "MHz", "_tokens": "tokens"}
    for name, column in COLUMNS.items():
        for ending, unit in units.items():
            if name.endswith(ending):
                assert column.unit == unit, name
