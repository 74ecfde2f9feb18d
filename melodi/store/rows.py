"""Between an energy record and its row."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import RowMapping

from melodi.energy.record import DomainEnergy, EnergyRecord, Quality, Status

_NAMES = tuple(f.name for f in fields(EnergyRecord))


def to_row(record: EnergyRecord) -> dict[str, Any]:
    """The record's fields by column; the engine writes the nested ones as JSON."""
    return {name: getattr(record, name) for name in _NAMES}


def to_record(row: RowMapping) -> EnergyRecord:
    """The record that was stored as this row of `requests`."""
    return EnergyRecord(
        **{
            **row,
            "status": Status(row["status"]),
            "quality": Quality(row["quality"]),
            "quality_reasons": tuple(row["quality_reasons"]),
            "throttle_reasons": tuple(row["throttle_reasons"]),
            "domains": {name: _to_domain(value) for name, value in row["domains"].items()},
        }
    )


def _to_domain(value: Mapping[str, Any]) -> DomainEnergy:
    return DomainEnergy(
        **{**value, "quality": Quality(value["quality"]), "reasons": tuple(value["reasons"])}
    )
