"""Clients that send streamed chat prompts, so many at a time, and note when tokens came."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from benchmarks.gpu.end_to_end.energy import Sent

TIMEOUT_SECONDS = 60
ALIKE = 8


@dataclass(frozen=True, slots=True)
class Target:
    """Where prompts go."""

    url: str
    model: str
    max_tokens: int


class Prompts:
    """Of like length, so that any few of them are alike; handed to many threads.

    Each is numbered anew, so that no server remembers one.
    """

    def __init__(self, corpus: Path) -> None:
        lines = corpus.read_text(encoding="utf-8").splitlines()
        texts = sorted((json.loads(line)["prompt"] for line in lines), key=len)
        middle = len(texts) // 2
        self._texts = texts[middle - ALIKE // 2 : middle + ALIKE // 2]
        self._count = 0
        self._lock = threading.Lock()

    def next(self) -> str:
        with self._lock:
            self._count += 1
            return f"{self._count}. {self._texts[self._count % len(self._texts)]}"


def for_seconds(
    target: Target, prompts: Prompts, *, concurrency: int, seconds: float
) -> list[Sent]:
    """Each client sends one after the other until the time is up, and lets the last one end."""
    end = time.monotonic() + seconds
    return _run(target, prompts, concurrency, lambda: time.monotonic() < end)


def so_many(target: Target, prompts: Prompts, *, concurrency: int, requests: int) -> list[Sent]:
    """A fixed number of requests, shared among the clients."""
    left = iter(range(requests))
    return _run(target, prompts, concurrency, lambda: next(left, None) is not None)


def tokens_per_second(sent: list[Sent]) -> float | None:
    """Output tokens of all, from the first start to the last end; None where one failed."""
    if not sent or any(one.output_tokens is None for one in sent):
        return None
    start_ns, end_ns = min(one.start_ns for one in sent), max(one.end_ns for one in sent)
    return sum(one.output_tokens or 0 for one in sent) * 1e9 / (end_ns - start_ns)


def _run(
    target: Target, prompts: Prompts, concurrency: int, another: Callable[[], bool]
) -> list[Sent]:
    sent: list[Sent] = []
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                if not another():
                    return
            one = send(target, prompts.next())
            with lock:
                sent.append(one)

    threads = [threading.Thread(target=client) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sent


def send(target: Target, prompt: str) -> Sent:
    """Send one prompt; what goes wrong is in its `error`."""
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": target.max_tokens,
        "stream": True,
    }
    request = urllib.request.Request(
        f"{target.url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    request_id, first_ns, tokens, error = None, None, None, None
    start_ns = time.time_ns()
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            request_id = answer.headers.get("X-Melodi-Request-Id")
            for event in _events(answer):
                if "error" in event:
                    error = str(event["error"])
                if usage := event.get("usage"):
                    tokens = usage["completion_tokens"]
                if first_ns is None and _has_text(event):
                    first_ns = time.time_ns()
    except (OSError, ValueError) as failed:
        error = f"{type(failed).__name__}: {failed}"
    if tokens is None and error is None:
        error = "the answer ended without its token counts"
    return Sent(request_id, start_ns, first_ns, time.time_ns(), tokens, error)


def _events(answer: HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in answer:
        text = line.decode().strip()
        if text.startswith("data: ") and text != "data: [DONE]":
            yield json.loads(text.removeprefix("data: "))


def _has_text(event: dict[str, Any]) -> bool:
    return any(choice.get("delta", {}).get("content") for choice in event.get("choices", ()))
