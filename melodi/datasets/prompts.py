"""Prompt sets: the bundled ones by name, anybody's from a file."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from melodi.datasets.formats import PARSERS, Problem, Row, decode
from melodi.datasets.turns import BrokenRow, Message, turns_of
from melodi.errors import PromptSetError
from melodi.spelling import did_you_mean

__all__ = ["Message", "Problem", "Prompt", "PromptSet", "bundled", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt, as it is sent and as it is counted."""

    id: str
    """From the file, or `<file>-<line>`; unique in its set."""
    task: str | None
    text: str
    """The contents of all messages, an empty line between them."""
    messages: tuple[Message, ...]
    reference: str | None
    """An answer to judge by; None: the file has none."""
    language: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """Prompts in the order they are to be sent, and the lines that were left out."""

    name: str
    prompts: tuple[Prompt, ...]
    problems: tuple[Problem, ...]
    """Of the whole file, whatever was chosen from it."""


def bundled() -> list[str]:
    """Names of the sets that come with MELODI, sorted."""
    return sorted(path.stem for path in _bundled_folder().glob("*.jsonl"))


def load(
    name_or_path: str | Path,
    *,
    task: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
) -> PromptSet:
    """The prompts of a bundled set (`melodi-60`, `melodi-60:qa`) or of a file.

    `task` keeps one task. `seed` shuffles, the same way on every machine and for every `limit`.
    `limit` then keeps the first ones; a smaller set comes whole.
    A file ends in .jsonl or .ndjson (`prompt`, `messages` or `conversations`; beside them `id`,
    `task` or `type`, `reference`, `language`), .csv (the same as columns, with `prompt`) or .txt.
    Raises PromptSetError.
    """
    if limit is not None and limit < 1:
        raise PromptSetError(f"a limit of {limit} leaves no prompt; ask for 1 or more")
    path, subset = _find(name_or_path)
    prompts, problems = _read(path)
    for wanted in (subset, task):
        if wanted is not None:
            prompts = _only(prompts, wanted, path.stem)
    if seed is not None:
        prompts = sorted(prompts, key=lambda prompt: _rank(prompt.id, seed))
    return PromptSet(name=path.stem, prompts=tuple(prompts[:limit]), problems=tuple(problems))


def _find(name_or_path: str | Path) -> tuple[Path, str | None]:
    """The file, and the task where a bundled set is named with one."""
    known = bundled()
    name, _, subset = str(name_or_path).partition(":")
    if name in known:
        return _bundled_folder() / f"{name}.jsonl", subset or None
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path, None
        if path.is_dir():
            raise PromptSetError(f"{path} is a folder; name a file in it")
    except OSError as error:
        raise _unreadable(path, error) from error
    raise PromptSetError(
        f"{str(name_or_path)!r} is neither a bundled prompt set nor a file"
        f"{did_you_mean(name, known)}; give a path, or a bundled set: {', '.join(known)}"
    )


def _read(path: Path) -> tuple[list[Prompt], list[Problem]]:
    parse = PARSERS.get(path.suffix.lower())
    if parse is None:
        raise PromptSetError(
            f"{path} does not say its format; name it with one of {', '.join(PARSERS)}"
            " (a JSON array becomes JSONL with: jq -c '.[]')"
        )
    try:
        rows = parse(decode(path.read_bytes()))
        prompts, problems = _prompts(rows, path.stem)
    except OSError as error:
        raise _unreadable(path, error) from error
    except PromptSetError as error:
        raise PromptSetError(f"{path}: {error}") from None
    if not prompts:
        first = f"; line {problems[0].line} {problems[0].reason}" if problems else " at all"
        raise PromptSetError(f"{path} has no prompt{first}; put one good line into it")
    return prompts, problems


def _prompts(rows: Iterable[Row | Problem], stem: str) -> tuple[list[Prompt], list[Problem]]:
    prompts: list[Prompt] = []
    problems: list[Problem] = []
    first_seen: dict[str, int] = {}
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
            continue
        try:
            prompt = _prompt(row, stem)
            if (seen := first_seen.setdefault(prompt.id, row.line)) != row.line:
                raise BrokenRow(
                    f"id {prompt.id!r} was taken on line {seen}; give each prompt its own"
                )
        except BrokenRow as error:
            problems.append(Problem(row.line, str(error)))
        else:
            prompts.append(prompt)
    return prompts, problems


def _prompt(row: Row, stem: str) -> Prompt:
    messages, reply = turns_of(row.fields)
    reference = _optional(row, "reference")
    task = _optional(row, "task")
    prompt = Prompt(
        id=_id(row, stem),
        task=_optional(row, "type") if task is None else task,
        text="\n\n".join(message["content"] for message in messages),
        messages=messages,
        reference=reply if reference is None else reference,
        language=_optional(row, "language"),
    )
    for value in (prompt.id, prompt.task, prompt.text, prompt.reference, prompt.language):
        _check_text(value or "")
    return prompt


def _id(row: Row, stem: str) -> str:
    given = row.fields.get("id")
    if given is None:
        return f"{stem}-{row.line}"
    if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
        raise BrokenRow(f"id {given!r} is no name; make it text or a whole number, or leave it out")
    return str(given)


def _optional(row: Row, name: str) -> str | None:
    value = row.fields.get(name)
    if value is None or isinstance(value, str):
        return value or None
    raise BrokenRow(f"`{name}` is {type(value).__name__}, not text; write it as a string")


def _check_text(text: str) -> None:
    # NULs are what UTF-16 leaves behind, and Postgres stores none
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BrokenRow("is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        raise BrokenRow("holds a NUL character; save the file as UTF-8 text")


def _only(prompts: list[Prompt], task: str, name: str) -> list[Prompt]:
    chosen = [prompt for prompt in prompts if prompt.task == task]
    if chosen:
        return chosen
    known = sorted({prompt.task for prompt in prompts if prompt.task is not None})
    choice = f"choose one of {', '.join(known)}" if known else "it names no tasks: ask for none"
    raise PromptSetError(
        f"{name} has no prompt of task {task!r}{did_you_mean(task, known)}; {choice}"
    )


def _unreadable(path: Path, error: OSError) -> PromptSetError:
    return PromptSetError(
        f"{path} cannot be read ({error.strerror}); check its name and permissions"
    )


def _rank(prompt_id: str, seed: int) -> bytes:
    # a hash rather than `random`, whose shuffles may change between versions of Python
    return sha256(f"{seed}:{prompt_id}".encode()).digest()


def _bundled_folder() -> Path:
    """`prompts` lies inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "prompts"
    return inside if inside.is_dir() else package.parent / "prompts"
