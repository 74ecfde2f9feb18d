"""What the bundled prompts promise: six tasks, many lengths, answers that are right."""

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, pairwise, permutations, product
from pathlib import Path

import pytest

from melodi.datasets.features import length_table, text_features
from melodi.datasets.prompts import Prompt, load

TASKS = {"chat", "qa", "summarisation", "code", "reasoning", "extraction"}
CARD = Path(__file__).parents[3] / "prompts" / "melodi-60.md"
PROMPTS = {prompt.id: prompt for prompt in load("melodi-60").prompts}


def of_task(task: str) -> list[Prompt]:
    return [PROMPTS[f"{task}-{number:02}"] for number in range(1, 11)]


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def test_there_are_ten_prompts_of_each_task() -> None:
    """The set is balanced, and ids say the task."""
    assert len(PROMPTS) == 60
    assert {prompt.id for task in TASKS for prompt in of_task(task)} == set(PROMPTS)
    assert all(prompt.id.startswith(f"{prompt.task}-") for prompt in PROMPTS.values())


def test_a_task_runs_from_a_few_words_to_hundreds() -> None:
    """Within a task each prompt is longer by a tenth at least than the one before."""
    for task in TASKS:
        words = [text_features(prompt.text).words for prompt in of_task(task)]
        assert words[0] <= 8
        assert 500 <= words[-1] <= 700
        assert all(longer >= 1.1 * shorter for shorter, longer in pairwise(words)), (task, words)


def test_the_first_twelve_show_every_task_twice_in_different_lengths() -> None:
    """A short demo sees all six tasks, prompts of ten words and prompts of hundreds."""
    first = load("melodi-60", limit=12).prompts
    assert sorted(prompt.task or "" for prompt in first) == sorted([*TASKS, *TASKS])
    assert {prompt.task for prompt in first[:6]} == TASKS
    words = sorted(text_features(prompt.text).words for prompt in first)
    assert words[1] < 10
    assert words[-2] > 300
    assert len(set(words)) == 12


def test_no_two_prompts_are_alike() -> None:
    """Texts are unique, and no two share more than a few runs of three words."""

    def runs(prompt: Prompt) -> set[tuple[str, ...]]:
        words = words_of(prompt.text)
        return set(zip(words, words[1:], words[2:], strict=False))

    for one, other in combinations(PROMPTS.values(), 2):
        shared = runs(one) & runs(other)
        smaller = min(len(runs(one)), len(runs(other)))
        assert len(shared) <= max(3, 0.2 * smaller), (one.id, other.id, shared)


def test_no_two_prompts_begin_alike() -> None:
    """A prefix cache finds nothing to reuse between them."""
    beginnings = {" ".join(prompt.text.split()[:6]) for prompt in PROMPTS.values()}
    assert len(beginnings) == 60


def test_every_task_but_chat_has_references() -> None:
    """A reference is there where an answer can be right or wrong, and only there."""
    for prompt in PROMPTS.values():
        assert (prompt.reference is None) == (prompt.task == "chat"), prompt.id
        assert prompt.language == "en"


def test_the_card_tells_the_lengths_that_are() -> None:
    """The table in the card is what the function computes today."""
    table = length_table((prompt.task or "", prompt.text) for prompt in PROMPTS.values())
    assert table in CARD.read_text(), f"put this table into {CARD.name}:\n{table}"


def leaves(value: object) -> Iterator[str]:
    """The strings and numbers of a JSON value as they would be written."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


@pytest.mark.parametrize("prompt", of_task("extraction"), ids=lambda prompt: prompt.id)
def test_an_extraction_holds_only_what_the_prompt_says(prompt: Prompt) -> None:
    """Every extracted value stands in the prompt, word for word; keys are asked for."""
    assert prompt.reference is not None
    if prompt.reference[0] in "[{":
        answer = json.loads(prompt.reference)
        for value in leaves(answer):
            assert re.search(rf"(?<!\w){re.escape(value)}(?!\w)", prompt.text), value
        for key in re.findall(r'"(\w+)":', prompt.reference):
            assert key in prompt.text, key
    else:
        for line in prompt.reference.splitlines():
            assert line in prompt.text


@pytest.mark.parametrize("prompt", of_task("summarisation"), ids=lambda prompt: prompt.id)
def test_a_summary_invents_no_number(prompt: Prompt) -> None:
    """Every number and every time in a reference summary stands in its source."""
    assert prompt.reference is not None
    numbers = re.findall(r"\d[\d,.:]*\d|\d", prompt.reference)
    source = re.findall(r"\d[\d,.:]*\d|\d", prompt.text)
    assert set(numbers) <= set(source)


@pytest.mark.parametrize(
    ("prompt_id", "most"),
    [
        ("summarisation-02", 8),
        ("summarisation-05", 30),
        ("summarisation-09", 90),
        ("summarisation-10", 160),
    ],
)
def test_a_summary_keeps_to_its_length(prompt_id: str, most: int) -> None:
    """Where a prompt limits the words, the reference obeys."""
    assert text_features(PROMPTS[prompt_id].reference or "").words <= most


def test_short_sums_are_right() -> None:
    """The first four reasoning answers follow from arithmetic."""
    assert PROMPTS["reasoning-01"].reference == f"{17 * 23}"
    journey = (17 * 60 + 5) - (14 * 60 + 50)
    assert PROMPTS["reasoning-02"].reference == f"{journey} minutes"
    first = Fraction(84, 1 + 2 + 3)
    shares = f"{first}, {2 * first} and {3 * first} euros"
    assert PROMPTS["reasoning-03"].reference == shares
    rate = Fraction(900, 45) + Fraction(900, 90) - Fraction(900, 180)
    assert PROMPTS["reasoning-04"].reference == f"{900 / rate} minutes"


def test_the_island_has_one_solution() -> None:
    """Only one way of lying fits what Ana, Ben and Cleo say."""
    fits = [
        (ana, ben, cleo)
        for ana, ben, cleo in product([True, False], repeat=3)
        if ana == ((ana + ben + cleo) == 1) and ben == (ana != cleo) and cleo == (not (ana and ben))
    ]
    assert fits == [(False, True, True)]
    assert PROMPTS["reasoning-05"].reference == "Ana lies; Ben and Cleo tell the truth."


def test_the_server_plans_are_right() -> None:
    """The energy of both plans, and what one prompt saves."""

    def day_joules(busy_seconds: int, watts: int) -> int:
        return busy_seconds * watts + (86_400 - busy_seconds) * 110

    one, four = day_joules(7_200 * 6, 520), day_joules(7_200 // 4 * 9, 640)
    assert PROMPTS["reasoning-06"].reference == (
        f"Plan A: {one / 3.6e6:g} kWh. Plan B: {four / 3.6e6:g} kWh. "
        f"Plan B saves {(one - four) / 7_200:g} joules for each prompt."
    )


def test_the_evening_of_talks_has_one_order() -> None:
    """The wishes leave one order, whose last talk begins at 20:05."""
    fits = [
        order
        for order in permutations(["bees", "bridges", "clocks", "moss", "tides"])
        if order.index("bees") not in (0, 4)
        and order.index("tides") == order.index("clocks") + 1
        and order.index("bridges") - order.index("moss") >= 2
        and order[4] != "bridges"
    ]
    assert len(fits) == 1
    minutes = 18 * 60 + 30 + 20 * fits[0].index("tides") + 15
    assert PROMPTS["reasoning-07"].reference == (
        f"{', '.join(fits[0]).capitalize()}; no other order is possible; "
        f"the talk about tides begins at {minutes // 60}:{minutes % 60:02}."
    )


def test_the_queue_in_the_workshop_is_right() -> None:
    """The customers' waiting times follow from the table in the prompt."""
    prompt = PROMPTS["reasoning-08"]
    takes = {"bell": 3, "puncture": 8, "wheel": 12}
    free, booked, worked, waits = 0, 0, 0, {}
    for number, (name, comes, job) in enumerate(
        re.findall(r"\| (\w) \| 9:(\d\d) \| (\w+) \|", prompt.text), start=1
    ):
        begins = max(free, int(comes))
        waits[name] = begins - int(comes)
        ended = begins + takes[job]
        worked += takes[job]
        booked += 4 if number % 3 == 0 else 0
        free = ended + (4 if number % 3 == 0 else 0)
    longest = max(waits, key=lambda name: waits[name])
    assert len(waits) == 8
    assert prompt.reference == (
        f"{longest} waits longest, {waits[longest]} minutes; "
        f"mean {sum(waits.values()) / 8:g} minutes; "
        f"{9 + ended // 60}:{ended % 60:02}; {ended - worked - booked} minutes"
    )
