"""What is measured while a server runs: phases of traffic, the cost of MELODI, the ledger."""

import time
import urllib.error
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gpu.end_to_end.energy import SECOND, Seen, Sent, in_service, padded, whole_device
from benchmarks.gpu.end_to_end.processes import BACKEND, Daemon, daemon
from benchmarks.gpu.end_to_end.traffic import Prompts, Target, for_seconds, so_many
from benchmarks.gpu.end_to_end.traffic import tokens_per_second as speed_of

Found = dict[str, Any]

SUMMED = ("energy", "active", "idle_share", "prefill", "decode", "low", "high")
COST_CONCURRENCY = 4
FINAL_SECONDS = 30


def seen_in(path: Path) -> Seen:
    with path.open() as lines:
        return Seen.of(lines)


def phase(
    one: Daemon,
    target: Target,
    prompts: Prompts,
    *,
    concurrency: int,
    seconds: float,
    reader: Path,
    device: str,
) -> Found:
    """Traffic through the gateway within a window, and its records beside the second reader."""
    window = one.post("/v1/windows", {"name": f"{concurrency} at once"})
    sent = for_seconds(target, prompts, concurrency=concurrency, seconds=seconds)
    window = one.post(f"/v1/windows/{window['id']}/end", {})
    good = [request for request in sent if request.error is None]
    records = [record_of(one, request) for request in good]
    found: Found = {
        "concurrency": concurrency,
        "requests": len(sent),
        "errors": sorted({request.error for request in sent if request.error}),
        "records": summed([record for record in records if record is not None]),
    }
    if not good:
        return found
    time.sleep(1)  # the reader sees the last change of the stretch a refresh later
    return found | beside(seen_in(reader), good, window, device)


def record_of(one: Daemon, request: Sent) -> Found | None:
    """Its final record; None where there is none."""
    if request.id is None:
        return None
    try:
        found: Found = one.get(f"/v1/requests/{request.id}?wait={FINAL_SECONDS}")
    except urllib.error.HTTPError:
        return None
    return None if found["provisional"] else found


def summed(records: list[Found]) -> Found:
    """Joules of all records; None where one is unknown."""
    found: Found = {"count": len(records), "ids": len({one["id"] for one in records})}
    for name in SUMMED:
        values = [one[f"{name}_joules"] for one in records]
        found[f"{name}_joules"] = None if None in values or not values else sum(values)
    found["output_tokens"] = sum(one["output_tokens"] or 0 for one in records)
    found["input_tokens"] = sum(one["input_tokens"] or 0 for one in records)
    joules, tokens = found["energy_joules"], found["output_tokens"]
    found["joules_per_output_token"] = joules / tokens if joules is not None and tokens else None
    found["not_ok"] = sum(one["status"] != "ok" for one in records)
    found["with_first_token"] = sum(
        one["time_to_first_token_seconds"] is not None for one in records
    )
    found["qualities"] = counted([one["quality"] for one in records])
    found["policies"] = counted([one["policy"] for one in records])
    idle = {
        domain["idle_watts"]
        for one in records
        for domain in one["domains"].values()
        if domain["idle_watts"] is not None
    }
    found["idle_watts"] = [min(idle), max(idle)] if idle else None
    return found


def counted(words: list[str]) -> dict[str, int]:
    return {str(word): words.count(word) for word in sorted(set(words), key=str)}


def beside(seen: Seen, sent: list[Sent], window: Found, device: str) -> Found:
    """The same stretch by the second reader, by MELODI's window, and by two other ways."""
    start_ns, end_ns = in_service(sent)
    opened_ns = datetime.fromisoformat(window["started_at"]).timestamp() * SECOND
    closed_ns = opened_ns + (window["duration_seconds"] or 0) * SECOND
    return {
        "seconds": (end_ns - start_ns) / SECOND,
        "tokens_per_second": speed_of(sent),
        "reader_joules": seen.joules(start_ns, end_ns),
        "whole_device_joules": whole_device(seen, sent),
        "padded_joules": padded(seen, sent),
        "window_joules": window["domains"][device]["joules"],
        "window_reader_joules": seen.joules(opened_ns, closed_ns),
    }


def quiet(seconds: float, reader: Path) -> Found:
    """Mean power while nothing is asked."""
    start_ns = time.time_ns()
    time.sleep(seconds + 1)
    seen, end_ns = seen_in(reader), start_ns + round(seconds * SECOND)
    joules = seen.joules(start_ns, end_ns)
    return {
        "counter_watts": None if joules is None else joules / seconds,
        "shown_watts": seen.mean_watts(start_ns, end_ns),
    }


def cost(
    folder: Path,
    target: Target,
    prompts: Prompts,
    *,
    pairs: int,
    requests: int,
    end: float,
    device: str,
    env: dict[str, str],
) -> Found:
    """Tokens per second through MELODI over those without any MELODI.

    In turns, and which of the two comes first in turns. No further pair is begun that would not be
    done at `end` (monotonic seconds).
    """

    def without() -> float | None:
        return speed_of(so_many(target, prompts, concurrency=COST_CONCURRENCY, requests=requests))

    def measured(name: str) -> float | None:
        with daemon(folder / name, target.url, device=device, env=env) as one:
            through = Target(one.gateway, target.model, target.max_tokens)
            sent = so_many(through, prompts, concurrency=COST_CONCURRENCY, requests=requests)
            return speed_of(sent)

    found: list[tuple[float | None, float | None]] = []
    longest = 0.0
    while len(found) < pairs and time.monotonic() + longest < end:
        began = time.monotonic()
        name = f"cost-{len(found)}"
        if len(found) % 2:
            through = measured(name)
            found.append((without(), through))
        else:
            found.append((without(), measured(name)))
        longest = max(longest, time.monotonic() - began)
    ratios = sorted(b / a for a, b in found if a is not None and b is not None)
    if not ratios:
        return {"pairs": found, "median": None}
    return {
        "pairs": found,
        "median": median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
    }


def ledger(
    one: Daemon, device: str, reader: Path, *, since_ns: int, refresh_seconds: float
) -> Found:
    """Each whole minute of the books beside the second reader, and the sums of all."""
    since = datetime.fromtimestamp(since_ns / SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    seen = seen_in(reader)
    limit_watts = None if seen.limit_mw is None else 1.1 * seen.limit_mw / 1_000
    edge = None if limit_watts is None else 2 * refresh_seconds * limit_watts
    minutes = []
    for line in one.get(f"/v1/ledger?by=minute&since={since}")["items"]:
        if line["domain"] != device:
            continue
        start_ns = datetime.fromisoformat(line["minute"]).timestamp() * SECOND
        read = seen.joules(start_ns, start_ns + 60 * SECOND)
        # The minute that runs is not in the books yet.
        if read is not None and start_ns + 65 * SECOND < time.time_ns():
            minutes.append({"measured_joules": line["measured_joules"], "reader_joules": read})
    (total,) = (line for line in one.get("/v1/ledger")["items"] if line["domain"] == device)
    return {"minutes": minutes, "allowed_joules": edge, "total": total}


def all_records(one: Daemon) -> list[Found]:
    """Every record that there is."""
    items: list[Found] = []
    cursor = ""
    while True:
        page = one.get(f"/v1/requests?backend={BACKEND}&limit=1000{cursor}")
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = f"&cursor={page['next_cursor']}"
