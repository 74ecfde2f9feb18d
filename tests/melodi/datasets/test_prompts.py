"""What the loader of prompt sets promises to whoever brings a file."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.datasets.formats import LONGEST_LINE
from melodi.datasets.prompts import PromptSet, bundled, load
from melodi.errors import PromptSetError

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(str.strip)
lines = texts.filter(lambda text: not ({"\n", "\ufeff"} & set(text)) and text[-1] != "\r")
rows = st.fixed_dictionaries(
    {"prompt": texts},
    optional=dict.fromkeys(("task", "reference", "language"), texts),
)
broken_lines = st.sampled_from(
    ["{", "[]", "7", '"text"', "{}", '{"prompt": 3}', '{"prompt": " "}', "[" * 100_000]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that property tests share; every example writes its file anew."""
    return tmp_path_factory.mktemp("sets")


def load_text(folder: Path, name: str, text: str | bytes) -> PromptSet:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path)


def only_problem(found: PromptSet) -> str:
    (problem,) = found.problems
    return problem.reason


@given(st.lists(rows, min_size=1))
def test_prompts_come_back_from_jsonl_as_they_were(folder: Path, given_rows: list[dict]) -> None:
    """Every field of every row survives JSONL, whatever characters it holds."""
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in given_rows)
    found = load_text(folder, "set.jsonl", text)
    assert found.problems == ()
    for row, prompt in zip(given_rows, found.prompts, strict=True):
        assert prompt.text == row["prompt"]
        assert prompt.messages == ({"role": "user", "content": row["prompt"]},)
        assert (prompt.task, prompt.reference, prompt.language) == (
            row.get("task"),
            row.get("reference"),
            row.get("language"),
        )


@given(st.lists(st.tuples(texts, texts), min_size=1))
def test_prompts_come_back_from_csv_as_they_were(
    folder: Path, pairs: list[tuple[str, str]]
) -> None:
    """Quotes, commas and line ends inside CSV fields survive; `type` is the task."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("prompt", "type"), *pairs])
    found = load_text(folder, "set.csv", out.getvalue())
    assert found.problems == ()
    assert [(prompt.text, prompt.task) for prompt in found.prompts] == pairs


@given(st.lists(lines, min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_text_file_gives_a_prompt_a_line(
    folder: Path, given_lines: list[str], end: str, marked: bool
) -> None:
    """A byte order mark, CRLF and empty lines change nothing; U+2028 ends no line."""
    text = ("\ufeff" if marked else "") + (end + end).join(given_lines) + end
    found = load_text(folder, "set.txt", text)
    assert [prompt.text for prompt in found.prompts] == given_lines


@given(st.lists(st.one_of(texts, broken_lines.map(lambda line: (line,))), min_size=1, max_size=8))
def test_broken_lines_cost_only_themselves(folder: Path, mixed: list[str | tuple[str]]) -> None:
    """Each broken line is named by its number, and every other line gives its prompt."""
    content = [
        item[0] if isinstance(item, tuple) else json.dumps({"prompt": item}) for item in mixed
    ]
    good = [item for item in mixed if isinstance(item, str)]
    if not good:
        with pytest.raises(PromptSetError, match="has no prompt; line 1 "):
            load_text(folder, "mixed.jsonl", "\n".join(content))
        return
    found = load_text(folder, "mixed.jsonl", "\n".join(content))
    assert [prompt.text for prompt in found.prompts] == good
    assert [problem.line for problem in found.problems] == [
        at for at, item in enumerate(mixed, start=1) if isinstance(item, tuple)
    ]


def test_a_conversation_is_sent_up_to_its_last_user_turn(tmp_path: Path) -> None:
    """ShareGPT speakers become roles; the reply after the last user turn is the reference."""
    turns = [("system", "Be brief."), ("human", "Hi"), ("gpt", "Hello"), ("human", "Why?")]
    conversation = [{"from": who, "value": what} for who, what in turns]
    reply = {"from": "gpt", "value": "Because."}
    text = json.dumps({"id": 7, "conversations": [*conversation, reply, reply]})
    (prompt,) = load_text(tmp_path, "chats.jsonl", text).prompts
    assert prompt.id == "7"
    assert [message["role"] for message in prompt.messages] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert prompt.text == "Be brief.\n\nHi\n\nHello\n\nWhy?"
    assert prompt.reference == "Because."


def test_messages_are_sent_as_they_stand(tmp_path: Path) -> None:
    """Chat messages keep their roles, lose what is not role or content, and have no reference."""
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": "Hi", "name": "x"}]
    (prompt,) = load_text(tmp_path, "chats.ndjson", json.dumps({"messages": messages})).prompts
    assert prompt.messages == (
        {"role": "system", "content": ""},
        {"role": "user", "content": "Hi"},
    )
    assert prompt.reference is None


def test_an_empty_field_is_unknown(tmp_path: Path) -> None:
    """Empty task, reference, language and reply are None, as if they were not there."""
    empty = {"task": "", "reference": "", "language": ""}
    conversation = [{"from": "human", "value": "x"}, {"from": "gpt", "value": ""}]
    text = json.dumps({"prompt": "x"} | empty) + "\n" + json.dumps({"conversations": conversation})
    found = load_text(tmp_path, "set.jsonl", text).prompts
    assert len(found) == 2
    for prompt in found:
        assert (prompt.task, prompt.reference, prompt.language) == (None, None, None)


def test_a_csv_row_is_named_after_the_line_where_it_begins(tmp_path: Path) -> None:
    """Quoted fields that span lines, and empty lines, do not put the numbers out."""
    found = load_text(tmp_path, "a.csv", 'prompt\r\n"one\r\nmore"\r\n\r\ntwo\r\na,b\r\n')
    assert [prompt.id for prompt in found.prompts] == ["a-2", "a-5"]
    assert [problem.line for problem in found.problems] == [6]


def test_a_row_without_an_id_is_named_after_its_line(tmp_path: Path) -> None:
    """Rows without id are named by file and line, so that adding a row below renames none."""
    found = load_text(tmp_path, "mine.txt", "one\n\nthree\n")
    assert [prompt.id for prompt in found.prompts] == ["mine-1", "mine-3"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "x"}, "has no prompt; give it `prompt`, `messages` or `conversations`"),
        ({"prompt": 3}, "`prompt` is int, not text; write it as a string"),
        ({"prompt": " \n"}, "`prompt` is empty; write a prompt or take the line out"),
        ({"prompt": "x", "task": []}, "`task` is list, not text; write it as a string"),
        ({"prompt": "x", "id": True}, "id True is no name; make it text or a whole number"),
        ({"prompt": "x", "id": "first"}, "id 'first' was taken on line 1; give each"),
        ({"prompt": "a\0b"}, "holds a NUL character; save the file as UTF-8 text"),
        ({"prompt": "\ud800"}, "is not UTF-8; save the file as UTF-8"),
        ({"messages": "x"}, "`messages` is not a list of objects; write [{'role': ..., 'content'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no turn is the user's"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "'judge' is not a role; use one of"),
        ({"messages": [{"role": [], "content": "x"}]}, "[] is not a role; use one of system, user"),
        ({"messages": [{"role": "user"}]}, "'content' of turn 1 of `messages` is NoneType"),
        ({"conversations": []}, "no turn is the user's; a prompt needs one"),
    ],
)
def test_a_broken_row_says_why_and_what_to_do(tmp_path: Path, row: dict, reason: str) -> None:
    """Each way in which a row can be wrong has its own words, and the row before it stays."""
    text = f'{{"prompt": "x", "id": "first"}}\n{json.dumps(row)}'
    found = load_text(tmp_path, "set.jsonl", text)
    assert len(found.prompts) == 1
    assert found.problems[0].line == 2
    assert only_problem(found).startswith(reason)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"fine\n\xff\xfe\n", "is not UTF-8; save the file as UTF-8"),
        ("a.csv", b"prompt\nfine\n\xff\n", "is not UTF-8; save the file as UTF-8"),
        ("a.jsonl", b'{"prompt": "fine"}\n{"prompt": "\xff"}', "is not UTF-8"),
        ("a.jsonl", b'{"prompt": "fine"}\n{"prompt": 1', "is not JSON (Expecting ',' delimiter at"),
        ("a.jsonl", b'{"prompt": "fine"}\n[]', "is JSON, but a list; write one object a line"),
        ("a.csv", b"prompt\nfine\na,b\n", "has 2 fields where the header has 1; quote fields"),
        ("a.csv", b'prompt\nfine\n"a\n', "is not CSV (unexpected end of data); mend its quotes"),
        ("a.csv", b'prompt,id\nfine,1\n"a"b,2\nfine,3', "is not CSV (',' expected after '\"')"),
    ],
)
def test_a_broken_line_is_left_out_with_its_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    """What a format forbids costs the line that breaks it, and no other."""
    found = load_text(tmp_path, name, content)
    assert {prompt.text for prompt in found.prompts} == {"fine"}
    assert only_problem(found).startswith(reason)


@pytest.mark.parametrize(
    ("name", "header", "line"),
    [
        ("long.txt", "", "{}\n"),
        ("long.csv", "prompt\n", "{}\n"),
        ("long.jsonl", "", '{{"prompt": "{}"}}\n'),
    ],
)
def test_long_prompts_are_read_and_endless_ones_left_out(
    tmp_path: Path, name: str, header: str, line: str
) -> None:
    """A million characters are a prompt in every format; more than the limit is a problem."""
    long, endless = "x" * 1_000_000, "y" * (LONGEST_LINE + 1)
    elsewhere = csv.field_size_limit(77_777)
    found = load_text(tmp_path, name, header + line.format(long) + line.format(endless))
    assert csv.field_size_limit(elsewhere) == 77_777
    assert [prompt.text for prompt in found.prompts] == [long]
    assert "shorten it" in only_problem(found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", "", "has no prompt at all; put one good line into it"),
        ("bad.jsonl", "{}", "has no prompt; line 1 has no prompt; give it"),
        ("semi.csv", "prompt;type\nx;y", "no column `prompt` among 'prompt;type'; begin the file"),
        ("twice.csv", "prompt,prompt\nx,y", "two columns have one name; give each column its own"),
        ("set.json", "[]", "does not say its format; name it with one of .jsonl, .ndjson"),
    ],
)
def test_a_useless_file_is_refused_with_what_to_do(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    """A file that gives no prompt raises, names itself and says what to change."""
    with pytest.raises(PromptSetError) as caught:
        load_text(tmp_path, name, content)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_an_unknown_name_gets_a_suggestion() -> None:
    """A slip in a bundled set's name or task is answered with the nearest and the whole list."""
    with pytest.raises(PromptSetError, match=r"did you mean melodi-60\?.*bundled set: melodi-60"):
        load("meldoi-60")
    with pytest.raises(PromptSetError, match=r"task 'qaa' \(did you mean qa\?\); choose one of"):
        load("melodi-60:qaa")
    with pytest.raises(PromptSetError, match="neither a bundled prompt set nor a file"):
        load("away/prompts.csv")


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A folder, and a name that no file system takes, are answered without a traceback."""
    with pytest.raises(PromptSetError, match="is a folder; name a file in it"):
        load(tmp_path)
    with pytest.raises(PromptSetError, match=r"cannot be read .*; check its name"):
        load("Why is the sky blue? " * 50)


def test_a_task_of_a_set_without_tasks_is_refused(tmp_path: Path) -> None:
    """Asking a file that names no tasks for one says so instead of giving nothing."""
    (tmp_path / "set.txt").write_text("one")
    with pytest.raises(PromptSetError, match="it names no tasks: ask for none"):
        load(tmp_path / "set.txt", task="qa")


def test_a_subset_can_be_named_with_the_set() -> None:
    """`melodi-60:qa` and `task="qa"` are the same prompts."""
    assert load("melodi-60:qa") == load("melodi-60", task="qa")
    assert {prompt.task for prompt in load("melodi-60:qa").prompts} == {"qa"}


def test_without_a_seed_a_limit_keeps_the_first_lines() -> None:
    """The order of the file is the order of sending, and a smaller set comes whole."""
    everything = load("melodi-60").prompts
    assert load("melodi-60", limit=5).prompts == everything[:5]
    assert load("melodi-60", limit=1000).prompts == everything


@given(st.integers(), st.integers(1, 60))
def test_a_seed_draws_the_same_prompts_for_every_limit(seed: int, limit: int) -> None:
    """A smaller sample begins a larger one of the same seed, and the whole is a shuffle."""
    everything = load("melodi-60", seed=seed).prompts
    assert load("melodi-60", seed=seed, limit=limit).prompts == everything[:limit]
    assert sorted(prompt.id for prompt in everything) == sorted(
        prompt.id for prompt in load("melodi-60").prompts
    )


def test_a_seed_means_the_same_on_every_machine() -> None:
    """Neither Python's hash seed nor its version has a say in what is drawn."""
    drawn = [prompt.id for prompt in load("melodi-60", seed=0, limit=3).prompts]
    assert drawn == ["chat-10", "summarisation-09", "summarisation-02"]


def test_a_limit_below_one_is_refused() -> None:
    """No prompts at all is never what was meant."""
    with pytest.raises(PromptSetError, match="ask for 1 or more"):
        load("melodi-60", limit=0)


def test_an_installed_wheel_finds_its_bundled_sets(tmp_path: Path) -> None:
    """In a wheel the sets lie inside the package, and are found from any folder."""
    root = Path(__file__).parents[3]
    shutil.copytree(root / "melodi", tmp_path / "melodi")
    shutil.copytree(root / "prompts", tmp_path / "melodi" / "prompts")
    program = "from melodi.datasets import prompts as p; print(p.__file__, p.bundled())"
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.startswith(str(tmp_path))
    assert "['melodi-60']" in told


def test_every_bundled_set_loads_whole() -> None:
    """Each set that is offered by name loads without a problem."""
    assert bundled() == ["melodi-60"]
    for name in bundled():
        assert load(name).problems == ()
