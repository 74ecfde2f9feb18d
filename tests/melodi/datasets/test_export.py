"""An export is the stored records: the documented types, nothing lost, whole or not there."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pandas as pd
import pyarrow as pa
import pytest
from energy_records import any_records, make_record
from hypothesis import HealthCheck, given, settings
from postgres import TEMPLATE, postgres_server
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from melodi.datasets.columns import COLUMNS
from melodi.datasets.export import arrow_schema, count_rows, export_file, export_to
from melodi.datasets.selection import Export, Format
from melodi.energy.record import DomainEnergy, EnergyRecord, Quality
from melodi.errors import StoreError
from melodi.store.database import open_engine
from melodi.store.migrate import upgrade
from melodi.store.queries import RequestFilter
from melodi.store.records import Batch, RecordStore

NESTED = [name for name, column in COLUMNS.items() if column.arrow_type == "json"]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """A real Postgres."""
    with postgres_server() as server:
        yield {"postgres": server}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own."""
    if request.param == "postgres":
        made: str = request.getfixturevalue("servers")["postgres"].create(template=TEMPLATE)
        return made
    file = f"sqlite:///{tmp_path}/melodi.db"
    upgrade(file)
    return file


def put(url: str, *records: EnergyRecord) -> list[EnergyRecord]:
    """Store records and let go of the database; gives them as stored, oldest first."""
    engine = open_engine(url)
    store = RecordStore(engine)
    for host in dict.fromkeys(one.host for one in records):
        store.apply([Batch(host=host, records=tuple(r for r in records if r.host == host))])
    stored = [store.get(one.id) for one in records]
    engine.dispose()
    found = [one for one in stored if one is not None]
    return sorted(found, key=lambda one: (one.started_at, one.id))


def full(number: int, **changes: Any) -> EnergyRecord:
    """A record with something of every kind in it."""
    plain: dict[str, Any] = {
        "model": "größe, \"quoted\" 'm' 50% :x",
        "tags": {"a": "1", "ü": "\n"},
        "scores": {"exact": 1.0},
        "generation": {"stop": ["\n"], "temperature": 0.5},
        "prompt": "line one\nline two, with comma",
        "response": "",
        "streamed": True,
        "scheduled_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "input_tokens": 2**40,
        "energy_joules": 0.1 + 0.2,
        "gpu_joules": 0.0,
        "domains": {"gpu:x": DomainEnergy(scope="gpu", source="nvml", joules=1.5)},
        "quality_reasons": ("idle_unknown",),
        "throttle_reasons": (),
    }
    return make_record(number, **(plain | changes))


def read(url: str, **what: Any) -> pa.Table:
    """What is exported as Parquet."""
    sink = io.BytesIO()
    export_to(url, sink, Export(format=Format.PARQUET, **what))
    return parquet.read_table(io.BytesIO(sink.getvalue()))


def as_record(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its nested columns parsed."""
    return row | {name: json.loads(row[name]) for name in NESTED if row[name] is not None}


def plain(record: EnergyRecord) -> dict[str, Any]:
    """A record as JSON has it, with moments as they are."""
    found = {f.name: getattr(record, f.name) for f in fields(record)}
    return found | json.loads(orjson.dumps({name: asdict(record)[name] for name in NESTED}))


def test_every_column_has_the_documented_type_and_description(url: str) -> None:
    """Also where the table is empty, and where a column is null throughout."""
    for records in ((), (make_record(1),)):
        put(url, *records)
        table = read(url)
        assert table.num_rows == len(records)
        assert table.schema.equals(arrow_schema())
        for column in table.schema:
            said = column.metadata[b"description"].decode()
            assert said == COLUMNS[column.name].description


def test_a_record_is_exported_as_it_was_stored(url: str) -> None:
    """Every field: unknown is null, zero is zero, text is untouched, moments are UTC."""
    stored = put(url, full(1), make_record(2), full(3, energy_joules=None, scheduled_at=None))
    rows = [as_record(row) for row in read(url).to_pylist()]
    assert rows == [plain(one) for one in stored]


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(record=any_records())
def test_any_record_survives_in_every_format(tmp_path: Path, record: EnergyRecord) -> None:
    """Whatever text, numbers and moments it holds; JSON lines hold what Parquet holds."""
    url = f"sqlite:///{tmp_path}/any.db"
    upgrade(url)
    (stored,) = put(url, replace(record, host=record.id))
    what = {"provisional": True, "wanted": RequestFilter(host=record.id)}
    (row,) = read(url, **what).to_pylist()
    assert as_record(row) == plain(stored)
    sink = io.BytesIO()
    assert export_to(url, sink, Export(format=Format.JSONL, **what)) == 1
    line = json.loads(sink.getvalue())
    assert datetime.fromisoformat(line["started_at"]) == stored.started_at
    moments = {name: row[name] for name in ("started_at", "scheduled_at")}
    assert line | moments == as_record(row)


def test_lines_and_commas_read_back_equal(url: str, tmp_path: Path) -> None:
    """CSV and JSON lines, read by other programs, give the rows of the Parquet file."""
    put(url, *(full(n) for n in range(3)), make_record(7))
    files = {chosen: tmp_path / f"out.{chosen}" for chosen in Format}
    for chosen, path in files.items():
        assert export_file(url, path, Export(format=chosen)) == 4
    expected = parquet.read_table(files[Format.PARQUET])
    commas = arrow_csv.read_csv(
        files[Format.CSV],
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types=arrow_schema(), strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    assert commas.to_pylist() == expected.to_pylist()
    with files[Format.CSV].open(newline="", encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == expected["id"].to_pylist()
    lines = [json.loads(line) for line in files[Format.JSONL].read_text("utf-8").splitlines()]
    moments = ("started_at", "scheduled_at")
    for line in lines:
        line |= {name: line[name] and datetime.fromisoformat(line[name]) for name in moments}
    assert lines == [as_record(row) for row in expected.to_pylist()]


def test_columns_that_change_from_unknown_to_known_keep_their_type(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two rows to a batch and nothing known in the first of them; the order is by time."""
    monkeypatch.setattr("melodi.datasets.export.ROWS_AT_ONCE", 2)
    bare = [make_record(n, model=None, energy_joules=None) for n in range(4)]
    stored = put(url, *reversed(bare), *(full(n) for n in (8, 9, 10)))
    table = read(url)
    assert table["id"].to_pylist() == [one.id for one in stored]
    assert table.schema.equals(arrow_schema())
    assert table["model"].null_count == 4


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [1, 2, 3]),
        ({"model": "it's 100%"}, [2]),
        ({"tags": (("k", "v'"),)}, [3]),
        ({"quality": Quality.GAP}, [1]),
        ({"min_energy_joules": 2.5}, [3]),
        ({"since": make_record(2).started_at, "until": make_record(3).started_at}, [2]),
    ],
)
def test_the_filters_of_requests_hold(url: str, wanted: dict[str, Any], numbers: list[int]) -> None:
    """Whatever their words hold; a provisional record is left out unless it is asked for."""
    put(
        url,
        make_record(1, quality=Quality.GAP),
        make_record(2, model="it's 100%"),
        make_record(3, tags={"k": "v'"}),
        make_record(4, provisional=True, model="half"),
    )
    what = Export(format=Format.PARQUET, wanted=RequestFilter(**wanted))
    assert count_rows(url, what) == len(numbers)
    found = read(url, wanted=RequestFilter(**wanted))["started_at"].to_pylist()
    assert found == [make_record(number).started_at for number in numbers]
    assert read(url, wanted=RequestFilter(model="half"), provisional=True).num_rows == 1


def test_a_file_is_whole_or_not_there(url: str, tmp_path: Path) -> None:
    """What breaks in between leaves the old file and nothing beside it."""
    put(url, make_record(1))
    path = tmp_path / "new" / "records.csv"
    path.parent.mkdir()
    path.write_text("old")

    def broken(_: int) -> None:
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        export_file(url, path, Export(format=Format.CSV), on_rows=broken)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    """No database, a file that is none, a folder that cannot be written."""
    what = Export(format=Format.CSV)
    with pytest.raises(StoreError, match="record something first"):
        export_to(f"sqlite:///{tmp_path}/none.db", io.BytesIO(), what)
    (tmp_path / "bad.db").write_text("this is no database, however long it is " * 100)
    with pytest.raises(StoreError, match="cannot be exported"):
        export_to(f"sqlite:///{tmp_path}/bad.db", io.BytesIO(), what)
    with pytest.raises(StoreError, match="choose another"):
        export_file(f"sqlite:///{tmp_path}/bad.db", tmp_path / "bad.db" / "x.csv", what)


def test_other_programs_open_the_parquet_file(url: str, tmp_path: Path) -> None:
    """pandas, pyarrow and DuckDB see times as times, numbers as numbers, unknown as null."""
    put(url, *(full(n, energy_joules=None if n % 2 else float(n)) for n in range(10)))
    path = tmp_path / "records.parquet"
    export_file(url, path, Export(format=Format.PARQUET))
    frame = pd.read_parquet(path)
    assert str(frame["started_at"].dtype) == "datetime64[us, UTC]"
    assert frame["energy_joules"].dtype == "float64"
    assert frame["energy_joules"].isna().sum() == 5
    kinds = dict(
        duckdb.sql(f"DESCRIBE SELECT * FROM '{path}'")
        .project("column_name, column_type")
        .fetchall()
    )
    expected = {
        "string": "VARCHAR",
        "json": "VARCHAR",
        "bool": "BOOLEAN",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "float64": "DOUBLE",
        "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
    }
    assert kinds == {name: expected[column.arrow_type] for name, column in COLUMNS.items()}
    total = duckdb.sql(f"SELECT sum(energy_joules), count(energy_joules) FROM '{path}'").fetchall()
    assert total == [(20.0, 5)]
