"""The stages of a run, in order, each with what it found saved before the next begins."""

import json
import shutil
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.gpu.end_to_end import measure
from benchmarks.gpu.end_to_end.checks import checks
from benchmarks.gpu.end_to_end.page import page
from benchmarks.gpu.end_to_end.picture import draw
from benchmarks.gpu.end_to_end.processes import (
    ROOT,
    Daemon,
    Engine,
    NotStarted,
    daemon,
    free_port,
    second_reader,
)
from benchmarks.gpu.end_to_end.traffic import Prompts, Target, for_seconds

Found = dict[str, Any]
T = TypeVar("T")
CORPUS = ROOT / "prompts" / "melodi-60.jsonl"
DEFAULT_REFRESH_SECONDS = 0.1
TAIL_SECONDS = 6.0
MAKE_SECONDS = 150
GIGABYTE = 10**9


class OutOfTime(Exception):
    """A stage would not end within the limit."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do, and for how long."""

    sizes: tuple[str, ...]
    concurrencies: tuple[int, ...] = (1, 4, 16)
    phase_seconds: float = 20
    max_tokens: int = 96
    idle_seconds: float = 12
    cost_pairs: int = 4
    cost_requests: int = 16
    space_bytes: int = 20 * GIGABYTE
    """What the largest model takes on disk."""


@dataclass
class Run:
    """One run: where it works, what it has found."""

    plan: Plan
    engine: Engine
    out: Path
    work: Path
    env: dict[str, str]
    end: float
    """On the monotonic clock."""
    card: str = ""
    """What MELODI calls the card, once the second reader has told it."""
    found: Found = field(default_factory=dict)
    prompts: Prompts = field(default_factory=lambda: Prompts(CORPUS))

    def go(self, probe: Callable[[], Found]) -> bool:
        """All stages; False where one was not done or a check failed."""
        self.found |= {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": self.engine.device,
            "not_done": {},
            "seconds": {},
            "models": {},
        }
        self.found["probe"] = self._attempt("probe", 0, probe)
        self._attempt("run", 0, self._with_reader)
        self.found["checks"] = checks(self.found)
        self._save()
        return not self.found["not_done"] and all(one["ok"] for one in self.found["checks"])

    def _with_reader(self) -> None:
        """Every model in turn before one daemon, whose books are compared; at last the cost."""
        port = free_port()
        with ExitStack() as stack:
            reader = stack.enter_context(second_reader(self.work, self.engine.device, env=self.env))
            server = stack.enter_context(ExitStack())
            target = None
            self.card = f"gpu:{measure.seen_in(reader).uuid}"
            url = f"http://127.0.0.1:{port}"
            with daemon(self.work / "daemon", url, device=self.card, env=self.env) as one:
                since_ns = time.time_ns()
                for size in self.plan.sizes:
                    server.close()
                    start = partial(server.enter_context, self._served(size, port))
                    target = self._attempt(f"{size}: server", 60, start)
                    if target is not None:
                        self._phases(size, one, target, reader)
                self._attempt("ledger", 0, partial(self._books, one, reader, since_ns))
            if target is not None:
                self._attempt("cost", 30, partial(self._cost, target))

    @contextmanager
    def _served(self, size: str, port: int) -> Iterator[Target]:
        """A server of a model made on the spot, warm."""
        folder = self.work / f"llama-{size}"
        told: Found = {"parameters": self._make(folder, size), "phases": []}
        self.found["models"][size] = told
        with ExitStack() as stack:
            yield self._start(stack, folder, port, told)
        shutil.rmtree(folder, ignore_errors=True)

    def _start(self, stack: ExitStack, folder: Path, port: int, told: Found) -> Target:
        """In batches where it can, one request after the other where it cannot."""
        target = Target(f"http://127.0.0.1:{port}", str(folder), self.plan.max_tokens)
        log = self.work / f"engine-{folder.name}.log"
        for batching in (True, False):
            told["continuous_batching"] = batching
            try:
                stack.enter_context(self.engine.serving(folder, port, log, batching=batching))
                errors = self._warm_up(target)
            except NotStarted as failed:
                errors = [str(failed)]
            if not errors:
                return target
            told.setdefault("start_errors", []).extend(errors)
            stack.close()
        raise NotStarted(f"the server answers no prompt: {told['start_errors']}; see {log.name}")

    def _warm_up(self, target: Target) -> list[str]:
        """As many at once as later, so that nothing is compiled or reserved while it counts."""
        for concurrency in self.plan.concurrencies:
            sent = for_seconds(target, self.prompts, concurrency=concurrency, seconds=1)
            if errors := [one.error for one in sent if one.error]:
                return errors[:3]
        return []

    def _make(self, folder: Path, size: str) -> int:
        maker = Path(__file__).with_name("make_model.py")
        command = [self.engine.python, maker, folder, size, CORPUS, self.engine.device]
        env = self.engine.env
        made = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=MAKE_SECONDS
        )
        if made.returncode != 0:
            raise NotStarted(f"the model {size} was not made:\n{made.stderr[-2000:]}")
        return int(made.stdout.split()[-1])

    def _phases(self, size: str, one: Daemon, target: Target, reader: Path) -> None:
        """Quiet, then traffic at each concurrency, then the tail."""
        plan, told = self.plan, self.found["models"][size]
        through = Target(one.gateway, target.model, target.max_tokens)
        idle = partial(measure.quiet, plan.idle_seconds, reader)
        told["idle"] = self._attempt(f"{size}: idle", plan.idle_seconds, idle)
        for concurrency in plan.concurrencies:
            traffic = partial(
                measure.phase,
                one,
                through,
                self.prompts,
                concurrency=concurrency,
                seconds=plan.phase_seconds,
                reader=reader,
                device=self.card,
            )
            name = f"{size}: {concurrency} at once"
            phase = self._attempt(name, plan.phase_seconds + 10, traffic)
            told["phases"] += [] if phase is None else [phase]
        time.sleep(TAIL_SECONDS)

    def _cost(self, target: Target) -> None:
        self.found["cost"] = measure.cost(
            self.work,
            target,
            self.prompts,
            pairs=self.plan.cost_pairs,
            requests=self.plan.cost_requests,
            device=self.card,
            end=self.end,
            env=self.env,
        )

    def _books(self, one: Daemon, reader: Path, since_ns: int) -> None:
        """The ledger; waits for a first whole minute where none has passed yet."""
        minute_ns = 60 * 10**9
        first_end_ns = (since_ns // minute_ns + 2) * minute_ns
        wait = (first_end_ns - time.time_ns()) / 10**9 + 6
        if 0 < wait < self.end - time.monotonic() - 10:
            time.sleep(wait)
        seen = measure.seen_in(reader)
        refresh = seen.refresh_seconds or DEFAULT_REFRESH_SECONDS
        self.found["reader"] = {"refresh_seconds": seen.refresh_seconds, "limit_mw": seen.limit_mw}
        self.found["ledger"] = measure.ledger(
            one, self.card, reader, since_ns=since_ns, refresh_seconds=refresh
        )
        records = measure.all_records(one)
        self.found["records"] = measure.summed([one for one in records if not one["provisional"]])
        self.found["records"]["provisional"] = sum(one["provisional"] for one in records)

    def _attempt(self, name: str, expected_seconds: float, action: Callable[[], T]) -> T | None:
        """What `action` gives; None, and the reason kept, where it fails or there is no time."""
        print(f"end_to_end: {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            if began + expected_seconds > self.end:
                raise OutOfTime(f"it takes about {expected_seconds:.0f} s; raise --limit")
            return action()
        except Exception as error:  # noqa: BLE001  the other stages tell something without this one
            traceback.print_exc()
            self.found["not_done"][name] = f"{type(error).__name__}: {error}"
            return None
        finally:
            self.found["seconds"][name] = round(time.monotonic() - began, 1)
            self._save()

    def _save(self) -> None:
        (self.out / "end_to_end.json").write_text(json.dumps(self.found, indent=1) + "\n")
        (self.out / "end_to_end.md").write_text(page(self.found))
        draw(self.found, self.out / "joules-per-token.png")
        with tarfile.open(self.out / "logs.tar.gz", "w:gz") as kept:
            for path in (*self.work.rglob("*.log"), *self.work.glob("reader.txt")):
                kept.add(path, str(path.relative_to(self.work)))
