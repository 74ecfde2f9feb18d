"""The two long puzzles of the bundled prompts, solved by trying everything."""

import re
from collections.abc import Callable
from itertools import permutations

from melodi.datasets.prompts import Prompt, load

REASONING = {prompt.id: prompt for prompt in load("melodi-60:reasoning").prompts}
BERTHS = list(permutations(range(1, 6)))

Journey = tuple[int, int, list[str]]
"""Arrival in minutes, price, and the crossings as `Ard 08:00 to Bel`."""


def journeys(prompt: Prompt, *, change_on_bel: int) -> list[Journey]:
    """Every journey from Ard to Eld that the prompt's timetable allows."""
    timetable = [
        (start, end, *map(to_minutes, (leaves, arrives)), int(price), f"{start} {leaves} to {end}")
        for start, end, leaves, arrives, price in re.findall(
            r"\| (\w+) \| (\w+) \| ([\d:]+) \| ([\d:]+) \| (\d+) \|", prompt.text
        )
    ]
    assert len(timetable) == 13
    found: list[Journey] = []

    def travel(place: str, ready: int, price: int, path: list[str]) -> None:
        if place == "Eld":
            found.append((ready, price, path))
            return
        change = 0 if not path else change_on_bel if place == "Bel" else 5
        for start, end, leaves, arrives, cost, crossing in timetable:
            if start == place and leaves >= ready + change:
                travel(end, arrives, price + cost, [*path, crossing])

    travel("Ard", 0, 0, [])
    return found


def to_minutes(time: str) -> int:
    return int(time[:2]) * 60 + int(time[3:])


def test_the_ferries_are_right() -> None:
    """The four answers are the best among all journeys, and each best is the only one."""
    prompt = REASONING["reasoning-09"]
    every = sorted(journeys(prompt, change_on_bel=5))
    earliest, price, path = every[0]
    assert every[1][0] > earliest
    by_price = sorted(every, key=lambda journey: journey[1])
    assert by_price[1][1] > by_price[0][1]
    in_time = sorted((j for j in every if j[0] <= to_minutes("10:50")), key=lambda j: j[1])
    assert in_time[1][1] > in_time[0][1]
    rebuilt = min(journeys(prompt, change_on_bel=3))
    lines = (prompt.reference or "").splitlines()
    assert lines[0] == f"1. 10:45, for {price}: {', '.join(path)}"
    assert earliest == to_minutes("10:45")
    assert lines[1] == f"2. {by_price[0][1]}: {', '.join(by_price[0][2])}, arriving at 11:00"
    assert by_price[0][0] == to_minutes("11:00")
    assert lines[2] == f"3. {in_time[0][1]}: {', '.join(in_time[0][2])}"
    assert lines[3] == f"4. {earliest - rebuilt[0]} minutes earlier (10:20), for {rebuilt[1]}"


Statement = tuple[str, Callable[..., bool]]
"""The names it is about, and whether their berths meet it."""

STATEMENTS: list[Statement] = [
    ("green white", lambda green, white: green == white + 1),
    ("red", lambda red: red not in (1, 5)),
    ("Anouk red", lambda anouk, red: anouk == red),
    ("Bo Dara", lambda bo, dara: bo < dara),
    ("Emre", lambda emre: emre == 5),
    ("Fay blue", lambda fay, blue: abs(fay - blue) == 1),
    ("lamps", lambda lamps: lamps == 3),
    ("flour black", lambda flour, black: flour == black),
    ("books Dara", lambda books, dara: books == dara),
    ("ropes Anouk", lambda ropes, anouk: abs(ropes - anouk) == 1),
    ("cat blue", lambda cat, blue: cat == blue),
    ("dog goat", lambda dog, goat: dog == goat + 2),
    ("hens apples", lambda hens, apples: hens == apples),
]
COLUMNS = {
    "colour": ["red", "blue", "green", "white", "black"],
    "owner": ["Anouk", "Bo", "Dara", "Emre", "Fay"],
    "cargo": ["apples", "books", "flour", "lamps", "ropes"],
    "animal": ["cat", "dog", "goat", "hens", "parrot"],
}


def pages(statements: list[Statement]) -> list[dict[str, int]]:
    """Every page of the harbour book, as the berth of each name, that the statements allow."""
    found: list[dict[str, int]] = [{}]
    for names in COLUMNS.values():
        known = {*found[0], *names}
        now = [
            (about.split(), holds)
            for about, holds in statements
            if set(about.split()) <= known and set(about.split()) & set(names)
        ]
        grown = (page | dict(zip(names, b, strict=True)) for page in found for b in BERTHS)
        found = [p for p in grown if all(holds(*map(p.get, about)) for about, holds in now)]
    return found


def test_the_harbour_page_has_one_solution() -> None:
    """What people remember leaves one page, and it is the reference's table."""
    (page,) = pages(STATEMENTS)
    reference = REASONING["reasoning-10"].reference or ""
    for berth in range(1, 6):
        here = {name for name, at in page.items() if at == berth}
        owner, colour, cargo, animal = (
            next(name for name in COLUMNS[column] if name in here)
            for column in ("owner", "colour", "cargo", "animal")
        )
        assert f"| {berth} | {owner} | {colour} | {cargo} | {animal} |" in reference


def test_only_the_statement_about_the_lamps_can_be_left_out() -> None:
    """Without any other of the thirteen statements the page is uncertain."""
    needless = [
        about
        for about, holds in STATEMENTS
        if len(pages([s for s in STATEMENTS if s != (about, holds)])) == 1
    ]
    assert needless == ["lamps"]
    assert (REASONING["reasoning-10"].reference or "").endswith("lamps could be left out.")
