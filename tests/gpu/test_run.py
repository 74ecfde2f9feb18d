"""A run goes on after what fails, and says what that was."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.gpu.end_to_end.processes import ROOT, NotStarted, running, wait_for
from benchmarks.gpu.end_to_end.run import Plan, Run
from benchmarks.gpu.end_to_end.traffic import ALIKE, Prompts
from benchmarks.gpu.end_to_end.wheels import OURS, download_line, install, missing


class OneByOne:
    """A server that cannot serve in batches."""

    device = "cpu"

    def __init__(self) -> None:
        self.running: list[bool] = []

    @contextmanager
    def serving(self, model: Path, port: int, log: Path, *, batching: bool) -> Iterator[str]:
        if batching:
            raise NotStarted("no batches here")
        self.running.append(True)
        yield f"http://127.0.0.1:{port}"
        self.running.pop()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    plan = Plan(sizes=("tiny",))
    found = {"not_done": {}, "seconds": {}, "models": {}}
    end = time.monotonic() + 60
    return Run(plan, OneByOne(), tmp_path, tmp_path, {}, end, found=found)


def test_a_server_that_cannot_batch_serves_one_after_the_other(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt counts, the first one's reason is kept, and the server is closed."""
    monkeypatch.setattr(Run, "_warm_up", lambda *_: [])
    told: dict = {}
    with ExitStack() as stack:
        target = run._start(stack, Path("model"), 1234, told)
        assert run.engine.running == [True]
    assert run.engine.running == []
    assert target.url == "http://127.0.0.1:1234"
    assert told == {"continuous_batching": False, "start_errors": ["no batches here"]}


def test_a_server_that_answers_no_prompt_is_given_up(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways were tried, and nothing runs on."""
    monkeypatch.setattr(Run, "_warm_up", lambda *_: ["HTTP 500"])
    with ExitStack() as stack, pytest.raises(NotStarted, match=r"no batches here.*HTTP 500"):
        run._start(stack, Path("model"), 1234, {})
    assert run.engine.running == []


def test_what_fails_is_kept_with_its_reason(run: Run) -> None:
    """A stage that raises gives nothing, and the file says why at once."""

    def breaks() -> int:
        raise ValueError("broken")

    assert run._attempt("breaks", 0, breaks) is None
    assert run._attempt("holds", 0, lambda: 7) == 7
    kept = json.loads((run.out / "end_to_end.json").read_text())
    assert kept["not_done"] == {"breaks": "ValueError: broken"}
    assert set(kept["seconds"]) == {"breaks", "holds"}


def test_what_would_not_end_in_time_is_not_begun(run: Run) -> None:
    """A stage of two minutes with one left."""
    assert run._attempt("long", 120, lambda: pytest.fail("was begun")) is None
    assert "raise --limit" in run.found["not_done"]["long"]


def test_a_process_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    """Nobody waits out the limit for it."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", "raise SystemExit('no such card')"]
    with (
        running(command, env={}, log=log) as process,
        pytest.raises(NotStarted, match=r"ended(.|\n)*no such card"),
    ):
        wait_for("http://127.0.0.1:9/", process, log, 60)


def test_any_few_prompts_are_alike_and_none_comes_twice() -> None:
    """Speeds of two rounds can be compared, and no server remembers a prompt."""
    prompts = Prompts(ROOT / "prompts/melodi-60.jsonl")
    first, second = ([prompts.next() for _ in range(ALIKE)] for _ in range(2))
    assert len(set(first + second)) == 2 * ALIKE
    assert sum(map(len, first)) == pytest.approx(sum(map(len, second)), rel=0.01)
    assert max(map(len, first)) < 2 * min(map(len, first))


def test_the_line_that_fetches_wheels_names_all_that_is_needed() -> None:
    """With the versions that a release pins, and no host."""
    line = download_line()
    assert "'fastapi>=" in line
    assert "'requests'" in line
    assert "'hypothesis'" in line
    assert "--constraint constraints.txt" in line
    assert "://" not in line


def test_what_is_missing_is_named_before_anything_starts() -> None:
    """All that MELODI imports is here; what is not is told with its reason."""
    assert missing(sys.executable, OURS, {}) == []
    (told,) = missing(sys.executable, ("no_such_module",), {})
    assert "No module named" in told


def test_a_folder_without_wheels_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """The line that fills it is named."""
    with pytest.raises(SystemExit, match="--wheels-line"):
        install(tmp_path, tmp_path / "site")


def test_the_script_says_what_it_does_not_know() -> None:
    """A misspelt option ends it with 2 before anything runs."""
    script = ROOT / "benchmarks/gpu/run.sh"
    ended = subprocess.run(
        [script, "found", "--onyl", "probe"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "--onyl is no option" in ended.stderr
