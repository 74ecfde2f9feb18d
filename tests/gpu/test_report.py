"""What a run's page says, and when a claim counts as held."""

from typing import Any

import pytest

from benchmarks.gpu.end_to_end.checks import checks
from benchmarks.gpu.end_to_end.page import page
from benchmarks.gpu.end_to_end.processes import ROOT
from benchmarks.gpu.write import caption, tables
from benchmarks.page import between_marks

BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"


def records(**changed: Any) -> dict[str, Any]:
    whole = {
        "ids": 8,
        "count": 8,
        "not_ok": 0,
        "output_tokens": 800,
        "joules_per_output_token": 2.0,
        "qualities": {"measured": 8},
        "energy_joules": 1_600.0,
        "active_joules": 1_200.0,
        "prefill_joules": 200.0,
        "decode_joules": 1_000.0,
    }
    return whole | changed


def found() -> dict[str, Any]:
    """A run in which everything is as it should be."""
    phase = {
        "concurrency": 4,
        "requests": 8,
        "errors": [],
        "records": records(),
        "tokens_per_second": 120.0,
        "reader_joules": 1_610.0,
        "whole_device_joules": 6_400.0,
        "padded_joules": 9_000.0,
        "window_joules": 1_700.0,
        "window_reader_joules": 1_702.0,
    }
    accounts = ("active", "idle_share", "load", "idle", "foreign", "unattributed", "tail")
    total = {f"{name}_joules": 100.0 for name in accounts}
    total |= {"active_joules": 1_200.0, "idle_share_joules": 400.0}
    total |= {"measured_joules": 2_000.0, "residual_joules": 1e-9}
    return {
        "made_at": "2030-01-02T03:04:05+00:00",
        "device": "cuda:0",
        "models": {
            "1b": {
                "parameters": 1_100_000_000,
                "continuous_batching": True,
                "idle": {"counter_watts": 90.0},
                "phases": [phase],
            }
        },
        "ledger": {
            "minutes": [{"measured_joules": 900.0, "reader_joules": 901.0}],
            "allowed_joules": 150.0,
            "total": total,
        },
        "records": records(),
        "cost": {"pairs": [[100, 99.5]], "median": 0.995, "lowest": 0.99, "highest": 1.0},
        "not_done": {},
    }


def held(run: dict[str, Any]) -> list[bool]:
    return [one["ok"] for one in checks(run)]


def test_a_run_without_fault_holds_every_claim() -> None:
    """Six of six."""
    assert held(found()) == [True] * 6


def test_a_lost_record_is_seen() -> None:
    """Eight sent, seven recorded."""
    run = found()
    run["models"]["1b"]["phases"][0]["records"]["ids"] = 7
    assert held(run) == [False, True, True, True, True, True]


def test_joules_in_no_record_are_seen() -> None:
    """Books and records a joule apart."""
    run = found()
    run["records"]["energy_joules"] -= 1
    assert held(run) == [True, False, True, True, True, True]


def test_a_window_or_a_minute_too_far_off_is_seen() -> None:
    """Further from the second reader than the edges explain."""
    run = found()
    run["models"]["1b"]["phases"][0]["window_joules"] += 160
    run["ledger"]["minutes"][0]["measured_joules"] -= 160
    assert held(run) == [True, True, False, False, True, True]


def test_prefill_and_decode_that_do_not_add_up_are_seen() -> None:
    """A joule of active energy in neither."""
    run = found()
    run["models"]["1b"]["phases"][0]["records"]["decode_joules"] -= 1
    assert held(run) == [True, True, True, True, False, True]


def test_more_than_a_hundredth_of_the_tokens_is_too_dear() -> None:
    """98 % of the speed without MELODI."""
    run = found()
    run["cost"]["median"] = 0.98
    assert held(run) == [True, True, True, True, True, False]


def test_what_was_not_measured_does_not_hold() -> None:
    """A run that broke off at once holds nothing, and its page can be written."""
    run = {"models": {}, "not_done": {"run": "NotStarted: no driver\nmore"}, "probe": None}
    assert held(run) == [False] * 6
    text = page(run)
    assert "Not done: run (NotStarted: no driver)." in text


def test_the_page_sets_the_ways_side_by_side() -> None:
    """Ours, windows and padded windows over the second reader's joules, and each claim."""
    run = found()
    run["checks"] = checks(run)
    text = page(run)
    assert "| 1b | 4 | 8 | 120 | 2 | 200 / 1,000 | 0.994 | 3.98 | 5.59 | measured 8 |" in text
    assert text.count("Held: ") == 6


@pytest.mark.parametrize("name", ["README.md", "docs/measuring.md"])
def test_both_pages_have_a_place_for_a_run(name: str) -> None:
    """What stood there goes, what stands around it stays."""
    text = (ROOT / name).read_text()
    written = between_marks(text, "gpu", "a new run")
    assert "a new run" in written
    assert between_marks(written, "gpu", text.split(BEGIN)[1].split(END)[0].strip("\n")) == text


def test_a_run_is_told_with_its_date_and_its_card() -> None:
    """The tables with the picture for one page, a caption for the other."""
    card = {"card": {"value": "A card"}, "driver": {"value": "580.1"}}
    run = found() | {"probe": {"card": card, "sensors": {}}}
    text = tables(run, picture=True)
    assert "run at 2030-01-02" in text
    assert "](images/" in text
    assert "A card" in text
    assert "A card (architecture unknown), driver 580.1" in caption(run)
    assert "of 1.1 billion parameters" in caption(run)


def test_scripted_power_never_gets_into_the_documentation() -> None:
    """A run on a CPU has no joules to show."""
    with pytest.raises(SystemExit, match="no measurement"):
        tables(found() | {"device": "cpu"}, picture=False)
