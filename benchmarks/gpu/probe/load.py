"""Keeps a GPU busy in square waves and tells when its kernels ran; as a script, it is the load."""

import ctypes
import json
import os
import random
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SECOND = 1_000_000_000
ANSWER_SECONDS = 90
"""A first CUDA context may take half a minute; a load of seconds never takes so long."""


def square_wave(seconds: float, half_ms: float | None) -> list[tuple[int, int]]:
    """When to run, in ns from the start: halves of about `half_ms`; None: all the time.

    Each half is up to 30 % shorter or longer, always alike: a strict period that a refresh divides
    would show the sensor the same few phases again and again.
    """
    end_ns = round(seconds * SECOND)
    if half_ms is None:
        return [(0, end_ns)]
    chance = random.Random(half_ms)
    spans, at_ns = [], 0
    while at_ns < end_ns:
        on_ns, off_ns = (
            round(half_ms * chance.uniform(0.7, 1.3) * SECOND / 1_000) for _ in range(2)
        )
        spans.append((at_ns, min(at_ns + on_ns, end_ns)))
        at_ns += on_ns + off_ns
    return spans


@dataclass(frozen=True, slots=True)
class Ran:
    """What a load did: when its kernels ran, and how many (None: it ran none)."""

    spans: list[tuple[int, int]]
    kernels: int | None


class Machine(Protocol):
    """Time, and something that keeps the GPU busy."""

    def now_ns(self) -> int: ...

    def sleep(self, seconds: float) -> None: ...

    def open_load(self) -> None:
        """Get ready to run kernels; until then no CUDA context exists."""

    def start(self, seconds: float, half_ms: float | None) -> None:
        """Run kernels for so long, as `square_wave` says."""

    def finish(self) -> Ran:
        """Wait until the started load has ended."""

    def close(self) -> None: ...


class TorchMachine:
    """Kernels in a process of their own, on a CUDA device, or on the CPU to try this out."""

    def __init__(self, device: str, *, python: str = sys.executable) -> None:
        self._command = [python, "-m", __name__, device]
        self._process: subprocess.Popen[str] | None = None

    now_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(time.sleep)

    def open_load(self) -> None:
        # Where this package is, be it a folder or packed into a file.
        root = Path(__file__).parents[__name__.count(".")]
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def start(self, seconds: float, half_ms: float | None) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([seconds, half_ms]) + "\n")
        self._process.stdin.flush()

    def finish(self) -> Ran:
        spans, kernels = self._answer()
        return Ran([(start, to) for start, to in spans], kernels)

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        waiting, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        line = self._process.stdout.readline() if waiting else ""
        if not line:
            raise RuntimeError("the process that runs kernels ended or hangs; see its error above")
        return json.loads(line)

    def close(self) -> None:
        if self._process is not None:
            with self._process as process:  # closes its pipes, too
                process.kill()


class StubMachine:
    """A scripted driver in virtual time, whose power follows the load (tests/support)."""

    IDLE_MW, BUSY_MW = 80_000.0, 500_000.0

    def __init__(
        self,
        library: Path,
        *,
        refresh_ms: float = 100,
        window_ms: float = 25,
        cards: int = 1,
        busy_card: int = 0,
    ) -> None:
        import pynvml

        self._stub = ctypes.CDLL(str(library))
        self._now_ns = 0
        self._ran = Ran([], None)
        self._busy_card = busy_card
        self._stub.stub_reset(cards)
        for card in range(cards):
            refresh_ns, window_ns = (round(ms * SECOND / 1_000) for ms in (refresh_ms, window_ms))
            self._stub.stub_set_refresh_ns(card, ctypes.c_int64(refresh_ns))
            self._stub.stub_set_window_ns(card, ctypes.c_int64(window_ns))
            self._point(card, 0, self.IDLE_MW)
        self.sleep(5)
        pynvml.nvmlLib = self._stub

    def now_ns(self) -> int:
        return self._now_ns

    def sleep(self, seconds: float) -> None:
        self._now_ns += round(seconds * SECOND)
        self._stub.stub_set_time_ns(ctypes.c_int64(self._now_ns))

    def open_load(self) -> None: ...

    def start(self, seconds: float, half_ms: float | None) -> None:
        begin_ns = self._now_ns
        spans = [(begin_ns + start, begin_ns + to) for start, to in square_wave(seconds, half_ms)]
        for start, to in spans:
            for at_ns, milliwatts in (
                (start, self.IDLE_MW),
                (start + 1, self.BUSY_MW),
                (to, self.BUSY_MW),
                (to + 1, self.IDLE_MW),
            ):
                self._point(self._busy_card, at_ns, milliwatts)
        self._ran = Ran(spans, None)

    def _point(self, card: int, at_ns: int, milliwatts: float) -> None:
        self._stub.stub_add_point(card, ctypes.c_int64(at_ns), ctypes.c_double(milliwatts))

    def finish(self) -> Ran:
        return self._ran

    def close(self) -> None: ...


def run_kernels(device: str) -> None:
    """Answer each line `[seconds, half_ms]` on stdin, once done, with when kernels ran."""
    import torch

    size, kind = (4096, torch.bfloat16) if device.startswith("cuda") else (256, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    out = torch.empty_like(left)

    def busy_until(end_ns: int) -> int:
        """Multiply until then; how often. A batch of 4 is waited for, so it overshoots little."""
        count = 0
        while time.monotonic_ns() < end_ns:
            for _ in range(4):
                torch.mm(left, right, out=out)
            count += 4
            if device.startswith("cuda"):
                torch.cuda.synchronize()
        return count

    busy_until(time.monotonic_ns() + SECOND // 2)
    print("true", flush=True)
    for line in sys.stdin:
        seconds, half_ms = json.loads(line)
        begin_ns = time.monotonic_ns()
        spans, kernels = [], 0
        for start, to in square_wave(seconds, half_ms):
            time.sleep(max(0, begin_ns + start - time.monotonic_ns()) / SECOND)
            began_ns = time.monotonic_ns()
            kernels += busy_until(begin_ns + to)
            spans.append((began_ns, time.monotonic_ns()))
        print(json.dumps([spans, kernels]), flush=True)


if __name__ == "__main__":
    run_kernels(sys.argv[1])
