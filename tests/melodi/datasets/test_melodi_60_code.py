"""The code references of the bundled prompts run, and do what their prompts ask."""

import contextlib
import io
import re
import sqlite3
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.datasets.prompts import load

CODE = {prompt.id: prompt for prompt in load("melodi-60:code").prompts}


def defined(prompt_id: str) -> dict[str, Any]:
    """The names that a reference defines."""
    names: dict[str, Any] = {}
    exec(compile(CODE[prompt_id].reference or "", prompt_id, "exec"), names)
    return names


def blocks(prompt_id: str) -> list[str]:
    """The code blocks in a prompt."""
    return re.findall(r"```(?:python)?\n(.*?)```", CODE[prompt_id].text, re.DOTALL)


def test_leap_years() -> None:
    """Centuries are leap years only every fourth time."""
    is_leap_year = defined("code-01")["is_leap_year"]
    assert [y for y in (1900, 2000, 2023, 2024, 2100) if is_leap_year(y)] == [2000, 2024]


@given(st.lists(st.integers()))
def test_the_median_splits_the_list_and_leaves_it_alone(values: list[int]) -> None:
    """As many values lie above the median as below, the empty list has none."""
    before = list(values)
    median = defined("code-02")["median_of"](values)
    assert values == before
    if not values:
        assert median is None
    else:
        assert sum(v < median for v in values) <= len(values) / 2
        assert sum(v > median for v in values) <= len(values) / 2


def test_the_program_prints_what_the_reference_says() -> None:
    """The program in the prompt is run."""
    (program,) = blocks("code-03")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "code-03", "exec"), {})
    assert out.getvalue().strip() == CODE["code-03"].reference


def test_the_query_lists_the_hungry_meters() -> None:
    """Bounds are half-open, the mean must exceed 100 W, and ties are alphabetical."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE readings(meter TEXT, at INTEGER, watts REAL)")
        database.executemany(
            "INSERT INTO readings VALUES (?, ?, ?)",
            [
                ("b", 0, 150),
                ("b", 3600, 9000),
                ("a", 10, 100),
                ("a", 3599, 200),
                ("c", 5, 100),
                ("d", 7, 500),
                ("d", -1, 0),
            ],
        )
        found = database.execute(CODE["code-04"].reference or "").fetchall()
    assert found == [("d", 500), ("a", 150), ("b", 150)]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)).map(lambda p: (p[0], sum(p)))))
def test_merged_intervals_cover_the_same_points(intervals: list[tuple[int, int]]) -> None:
    """The same points, sorted, with gaps between; the argument is untouched."""
    before = list(intervals)
    merged = defined("code-05")["merge"](intervals)

    def points(pairs: list[tuple[int, int]]) -> set[int]:
        return {at for start, end in pairs for at in range(start, end)}

    assert intervals == before
    assert points(merged) == points(intervals)
    assert all(start < end for start, end in merged)
    assert all(one[1] < other[0] for one, other in pairwise(merged))


def test_an_interval_that_ends_first_is_refused() -> None:
    """The prompt asks for ValueError."""
    with pytest.raises(ValueError, match="ends before"):
        defined("code-05")["merge"]([(1, 2), (3, 2)])


def test_durations() -> None:
    """The prompt's own examples, and refusals that show what was given."""
    parse: Callable[[str], int] = defined("code-06")["parse_duration"]
    assert [parse(text) for text in ("90s", "1h30m", "2d4h", "90m")] == [90, 5400, 187200, 5400]
    for wrong in ("", "h", "1.5h", "30m1h", "1h1h", "-5s", "10", "1h ", "١h", "1h\n"):
        with pytest.raises(ValueError, match=re.escape(repr(wrong))):
            parse(wrong)


def test_the_cache_forgets_by_age_and_by_use() -> None:
    """Entries go when their time is up; beyond that the least recently used goes."""
    now = [0.0]
    make = defined("code-07")["ExpiringCache"]
    cache = make(2, 10, lambda: now[0])
    cache.put("a", 1)
    cache.put("b", None)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("b", "gone"), len(cache)) == ("gone", 2)
    now[0] = 9.9
    cache.put("a", 4)
    now[0] = 10.0
    assert (cache.get("c"), cache.get("a"), len(cache)) == (None, 4, 1)
    for size, lifetime in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be"):
            make(size, lifetime, lambda: 0.0)


def test_the_mended_energy_keeps_unknown_apart() -> None:
    """Zero watts are a measurement, lost readings are time, and nothing is remembered."""
    energy_joules = defined("code-08")["energy_joules"]
    readings = [(3, 4.0), (0, 0.0), (1, 2.0), (1, None), (1, 2.0)]
    before = list(readings)
    assert energy_joules([(2, 10.0), (0, 0.0)]) == (10.0, 0.0)
    assert energy_joules([(0, 5.0), (1, None), (3, 5.0), (4, 7.0)]) == (6.0, 3.0)
    assert energy_joules(readings) == energy_joules(readings) == (7.0, 0.0)
    assert readings == before
    assert energy_joules([]) == energy_joules([(1, 5.0)]) == (0.0, 0.0)


def test_the_function_to_be_mended_is_broken() -> None:
    """The prompt says that its function is wrong, and it is."""
    broken: dict[str, Any] = {}
    exec(compile(blocks("code-08")[0], "code-08", "exec"), broken)
    with pytest.raises(IndexError):
        broken["energy_joules"]([(0, 1.0), (1, 1.0)])


def test_the_bicycle_report() -> None:
    """The prompt's own example, and each of its four rules for an imperfect log."""
    report = defined("code-09")["report"]
    log, expected = blocks("code-09")
    found = report(log.splitlines())
    assert found == eval(expected)
    assert list(found) == list(eval(expected))
    record = {"rides": 0, "minutes": 0, "station": "Mill", "round_trips": 0}
    assert report(["10:00 in red Mill", ""]) == {"red": record}
    twice_out = ["10:00 out red Dock", "11:00 out red Mill", "11:05 in red Mill"]
    assert report(twice_out)["red"] == record | {"rides": 1, "minutes": 5, "round_trips": 1}
    moved = ["10:00 out red Dock", "11:00 moved red Mill", "11:05 in red Mill"]
    assert report(moved)["red"] == record
    assert report(["24:00 in red Mill", "10:00 lost red Mill", "10:00 in red"]) == {"": [1, 2, 3]}


def test_the_spreadsheet_does_the_prompts_examples() -> None:
    """Both examples in the prompt come out as they are written there."""
    evaluate = defined("code-10")["evaluate"]
    examples = re.findall(r"evaluate\((.*)\)\n# (.*)", blocks("code-10")[0])
    assert len(examples) == 2
    for given_cells, expected in examples:
        assert evaluate(eval(given_cells)) == eval(expected)


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("=2-3-4", -5.0),
        ("=8/4/2", 1.0),
        ("=1+2*3", 7.0),
        ("=-A1*2", -4.0),
        ("=--A1", 2.0),
        ("= ( A1 + 1 ) ", 3.0),
        ("=SUM(B3:A1)", 7.0),
        ("=SUM(Y1:Z9)", 0.0),
        ("=B2", "#TEXT"),
        ("=B2/0", "#TEXT"),
        ("=1/0+B2", "#DIV0"),
        ("=C1/0", "#CYCLE"),
        ("=1/0+C1", "#DIV0"),
        ("=SUM(A1:C2)", "#CYCLE"),
        ("=SUM(E1:E1)", "#DIV0"),
        ("=D1", "#TEXT"),
        ("=F1/", "#SYNTAX"),
        ("=A01", "#SYNTAX"),
        ("=A100", "#SYNTAX"),
        ("=sum(A1:A2)", "#SYNTAX"),
        ("=A1 2", "#SYNTAX"),
        ("=.5", "#SYNTAX"),
        ("=(1", "#SYNTAX"),
        ("=", "#SYNTAX"),
    ],
)
def test_the_spreadsheet_follows_the_rules(formula: str, value: object) -> None:
    """Precedence, ranges, and which error wins, in either order of the cells."""
    evaluate = defined("code-10")["evaluate"]
    cells = {"A1": "2", "B2": "sea", "A3": " 5 ", "C1": "=C2", "C2": "=1/0+C1", "D1": "#DIV0"}
    cells |= {"E1": "=1/0", "F9": formula}
    assert evaluate(cells)["F9"] == value
    backwards = dict(reversed(cells.items()))
    assert evaluate(backwards) == evaluate(cells)
    assert list(evaluate(backwards)) == list(backwards)


def test_the_spreadsheet_follows_a_long_chain() -> None:
    """Two hundred cells in a row, each the double of the next, are each worked out once."""
    names = [f"{column}{row}" for column in "ABC" for row in range(1, 100)][:201]
    cells = {one: f"={other}+{other}" for one, other in pairwise(names)}
    values = defined("code-10")["evaluate"](cells | {names[-1]: "1"})
    assert values["A1"] == 2.0**200
