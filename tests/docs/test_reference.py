"""The reference is what the code says today, and says something about everything."""

from pathlib import Path
from typing import cast

import pytest
import typer
from prometheus_client import CollectorRegistry

from melodi.api.app import create_api
from melodi.api.services import Services
from melodi.cli.main import app
from melodi.config import Settings
from melodi.energy.record import EnergyRecord
from melodi.metrics import Metrics
from melodi.reference.__main__ import main
from melodi.reference.page import Page
from melodi.reference.pages import pages

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
PAGES = {page.name: page for page in pages()}


def test_the_pages_kept_are_those_that_the_code_gives(tmp_path: Path) -> None:
    """Whoever changes an option, a setting, a column, a metric or a route runs `make docs`."""
    main(tmp_path)
    made = {file.name: file.read_text() for file in tmp_path.iterdir()}
    kept = {file.name: file.read_text() for file in FOLDER.iterdir()}
    assert kept.keys() == made.keys()
    for name, text in made.items():
        assert kept[name] == text, f"docs/reference/{name} is out of date; run: make docs"


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_nothing_is_undocumented(page: Page) -> None:
    """Every command, option, setting, column, metric, route and parameter says what it is."""
    assert page.sections
    assert page.undocumented() == ()


def test_every_verb_has_a_section() -> None:
    """Groups and the verbs in them too."""
    root = typer.main.get_command(app)
    titles = [section.title for section in PAGES["cli"].sections]
    for name, verb in root.commands.items():
        assert f"melodi {name}" in titles
        for inner in getattr(verb, "commands", {}):
            assert f"melodi {name} {inner}" in titles


def test_every_table_of_settings_has_a_section() -> None:
    """And a setting of none stands before them."""
    sections = PAGES["settings"].sections
    outside = {row[0].strip("`") for row in sections[0].rows}
    tables = {section.title.strip("`[]") for section in sections[1:]}
    assert outside | tables == set(Settings.model_fields)
    assert not outside & tables


def test_every_column_has_a_row() -> None:
    """In the order of the record."""
    columns = [row[0].strip("`") for row in PAGES["record"].sections[0].rows]
    assert columns == list(EnergyRecord.__dataclass_fields__)


def test_every_metric_has_a_row_with_its_labels() -> None:
    """Those without a series yet as well."""
    registry = CollectorRegistry()
    Metrics(registry)
    rows = {row[0].strip("`"): row for row in PAGES["metrics"].sections[0].rows}
    assert len(rows) == len(list(registry.collect()))
    assert "`model`" in rows["melodi_requests_total"][2]
    assert rows["melodi_gateway_overhead_seconds"][2] == ""


def test_every_route_has_a_section() -> None:
    """Each path with each of its verbs."""
    titles = [section.title for section in PAGES["routes"].sections]
    paths = create_api(cast(Services, object())).openapi()["paths"]
    assert titles == [f"`{verb.upper()} {path}`" for path, verbs in paths.items() for verb in verbs]
    assert {"`GET /v1/requests`", "`POST /v1/requests`", "`GET /metrics`"} <= set(titles)
