"""Between an energy record and its row."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import RowMapping

from melodi.energy.record import DomainEnergy, EnergyRecord, Quality, Status

_NAMES = tuple(f.name for f in fields(EnergyRecord))


def to_rows(records: Sequence[EnergyRecord], seqs: Mapping[str, int]) -> list[dict[str, Any]]:
    """The records' fields by column, with the seqs of those that have one.

    A column that is unknown in all of them is left out, which an INSERT takes for NULL: it costs
    the database's driver as much as one that is known. The engine writes nested ones as JSON.
    """
    names = [
        name
        for name in _NAMES
        if name != "seq" and any(getattr(record, name) is not None for record in records)
    ]
    rows = [{name: getattr(record, name) for name in names} for record in records]
    for row in rows:
        row["seq"] = seqs.get(row["id"])
    return rows


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
