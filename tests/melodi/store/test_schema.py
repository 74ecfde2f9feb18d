"""The tables agree with the values they hold."""

from dataclasses import fields
from types import NoneType
from typing import get_args, get_type_hints

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from melodi.energy.accounts import MinuteAccounts
from melodi.energy.record import EnergyRecord
from melodi.store.schema import ledger_minutes, metadata, requests


def test_a_request_has_a_column_for_every_field_of_a_record() -> None:
    """Names agree in order, and exactly the fields that may be unknown may be NULL."""
    hints = get_type_hints(EnergyRecord)
    expected = {f.name: NoneType in get_args(hints[f.name]) for f in fields(EnergyRecord)}
    assert {column.name: column.nullable for column in requests.c} == expected
    assert list(requests.c.keys()) == list(expected)


def test_a_minute_has_a_column_for_every_account() -> None:
    """The ledger's columns are the host and the fields of MinuteAccounts."""
    assert ledger_minutes.c.keys() == ["host", *(f.name for f in fields(MinuteAccounts))]


def test_the_tables_can_be_made_on_postgres() -> None:
    """Moments are TIMESTAMPTZ and documents JSONB there."""
    text = "\n".join(
        str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect()))
        for table in metadata.sorted_tables
    )
    assert "started_at TIMESTAMP WITH TIME ZONE NOT NULL" in text
    assert "tags JSONB NOT NULL" in text
