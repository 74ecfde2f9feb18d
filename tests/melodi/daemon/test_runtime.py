"""From meter to answer on a simulated backend: one record a request, and books that close."""

import asyncio
from typing import Any

import aiohttp
import pytest
from waiting import PATIENCE_SECONDS, until

from melodi.clock import SystemClock
from melodi.config import BackendSettings
from melodi.daemon.running import running
from melodi.daemon.serve import Served, served
from melodi.energy.record import EnergyRecord, Quality, Status
from melodi.errors import BackendError, ConfigError
from melodi.inference.request import PromptRequest
from melodi.store.database import open_engine
from melodi.store.queries import RequestFilter
from melodi.store.records import RecordStore

CLOCK = SystemClock()
MODEL = "simulated"
DEVICE = "gpu:SIMULATED-0"


def ask(daemon: Served, text: str, **more: Any) -> PromptRequest:
    backend = daemon.runtime.backend(more.pop("backend", "sim"))
    return PromptRequest(
        backend=backend,
        model=more.pop("model", MODEL),
        prompt=text,
        options={"max_tokens": more.pop("max_tokens", 60)},
        **more,
    )


def stored(daemon: Served) -> list[EnergyRecord]:
    return list(daemon.runtime.store.page(RequestFilter(), limit=1000).items)


def check_books(store: RecordStore) -> None:
    """Counter readings against accounts, and the accounts against the stored records."""
    (line,) = store.ledger()
    assert line.measured_joules > 0
    assert abs(line.residual_joules) <= 1e-9 * line.measured_joules
    audit = store.audit(DEVICE, host="test")
    assert abs(audit.difference_joules) <= 1e-9 * line.measured_joules


async def test_dispatched_prompts_have_final_records_with_energy(daemon: Served) -> None:
    """Several at once, each with tokens, times, energy, bounds and a number of its own."""
    asked = [ask(daemon, f"tell me about {k} sheep", campaign="c") for k in range(5)]
    answers = await asyncio.gather(*(daemon.runtime.dispatch(one) for one in asked))
    assert all(one.response for one in answers)
    records = [await daemon.runtime.final(one.id, PATIENCE_SECONDS) for one in answers]
    assert sorted(record.seq for record in records) == [1, 2, 3, 4, 5]
    for record in records:
        assert record.status is Status.OK
        assert not record.provisional
        assert record.origin == "simulator"
        assert record.footprint == "gpu"
        assert 1 <= record.output_tokens <= 60
        assert record.time_to_first_token_seconds > 0
        assert record.low_joules <= record.energy_joules <= record.high_joules
        assert record.prompt == asked[records.index(record)].prompt
        assert record.response
    check_books(daemon.runtime.store)


async def test_traffic_that_passes_is_recorded_once_and_the_truth_is_within_the_bounds(
    daemon: Served, stage: Any
) -> None:
    """A client that only changed its port; beside its record stands what the simulator knows."""
    path = "/api/generate" if stage.kind == "ollama" else "/v1/completions"
    body = {"model": MODEL, "prompt": "a word about rain, please", "stream": True}
    async with aiohttp.ClientSession() as session:
        url = daemon.gateway_urls["sim"] + path
        async with session.post(url, json=body, headers={"X-Melodi-Tags": "a=b"}) as answer:
            assert answer.status == 200
            await answer.read()
            request_id = answer.headers["X-Melodi-Request-Id"]
            name = answer.headers["X-Simulator-Id"]
        record = await daemon.runtime.final(request_id, PATIENCE_SECONDS)
        truth_url = f"{stage.simulator.url}/simulator/requests/{name}"
        async with session.get(truth_url) as answer:
            truth = await answer.json()
    true_joules = truth["true_active_joules"] + truth["true_idle_share_joules"]
    assert record.tags == {"a": "b"}
    assert record.prompt is None
    assert record.low_joules <= true_joules <= record.high_joules
    assert [one.id for one in stored(daemon)] == [request_id]
    check_books(daemon.runtime.store)


async def test_the_api_answers_for_a_prompt_while_and_after_it_runs(daemon: Served) -> None:
    """POST a prompt, GET its record, the list, the ledger, the domains, the backends, metrics."""
    async with aiohttp.ClientSession(daemon.api_url) as api:
        body = {"backend": "sim", "model": MODEL, "prompt": "hello", "tags": {"k": "v"}}
        async with api.post("/v1/requests", json=body) as answer:
            sent = await answer.json()
            assert answer.status == 200, sent
        assert sent["response"]
        async with api.get(f"/v1/requests/{sent['id']}?wait=60") as answer:
            record = await answer.json()
        assert record["provisional"] is False
        assert record["energy_joules"] > 0
        assert record["tags"] == {"k": "v"}
        async with api.get("/v1/requests?tag=k=v") as answer:
            assert [one["id"] for one in (await answer.json())["items"]] == [sent["id"]]
        async with api.get("/v1/ledger?by=domain") as answer:
            (line,) = (await answer.json())["items"]
        assert line["measured_joules"] > 0
        async with api.get("/v1/domains") as answer:
            assert [one["name"] for one in (await answer.json())["items"]] == [DEVICE]
        async with api.get("/v1/backends") as answer:
            reachable = {one["name"]: one["reachable"] for one in (await answer.json())["items"]}
        assert reachable == {"sim": True, "down": False}
        async with api.get("/metrics") as answer:
            assert "melodi_requests_total{" in await answer.text()
        await until(lambda: not daemon.runtime.faults())
        async with api.get("/readyz") as answer:
            assert answer.status == 200


async def test_errors_become_records_and_the_other_prompts_go_on(daemon: Served) -> None:
    """An unknown model, a backend that is down, one that dies mid-stream, one that is fine."""
    faults = f"{daemon.runtime.backend('sim').url}/simulator/faults"
    died = {"kind": "die_mid_stream", "after_tokens": 3, "count": 1}
    async with aiohttp.ClientSession() as session, session.post(faults, json=died) as answer:
        assert answer.status == 200
    first = await daemon.runtime.dispatch(ask(daemon, "one"))
    broken = await daemon.runtime.final(first.id, PATIENCE_SECONDS)
    answers = await asyncio.gather(
        daemon.runtime.dispatch(ask(daemon, "two", model="nobody")),
        daemon.runtime.dispatch(ask(daemon, "three", backend="down")),
        daemon.runtime.dispatch(ask(daemon, "four")),
    )
    unknown, down, fine = [await daemon.runtime.final(one.id, PATIENCE_SECONDS) for one in answers]
    assert broken.status is Status.INCOMPLETE
    assert broken.energy_joules is not None
    assert unknown.status is Status.ERROR
    assert unknown.http_status == 404
    assert "nobody" in unknown.error
    assert down.status is Status.ERROR
    assert "start it or mend its url" in down.error
    for refused in (unknown, down):
        assert refused.energy_joules is None
        assert refused.quality is Quality.NONE
        assert refused.quality_reasons == ("not_served",)
    assert fine.status is Status.OK
    check_books(daemon.runtime.store)


async def test_an_unknown_backend_is_named_with_the_known_ones(daemon: Served) -> None:
    """The message says what to do."""
    with pytest.raises(BackendError, match=r"'nowhere' \(known: down, sim\)"):
        daemon.runtime.backend("nowhere")


async def test_stopping_closes_the_books_on_what_still_ran(stage: Any) -> None:
    """A request that is cut off by the stop has one final record, and no joule is lost."""
    async with served(stage.settings, clock=CLOCK, probes=stage.probes()) as daemon:
        request = ask(daemon, "count as far as you can")
        task = asyncio.create_task(daemon.runtime.dispatcher.dispatch(request))
        await until(lambda: stage.simulator.core.next_event_ns() is not None)
        task.cancel()
    engine = open_engine(stage.settings.database.url)
    store = RecordStore(engine)
    (record,) = store.page(RequestFilter()).items
    assert record.status is Status.CANCELLED
    assert not record.provisional
    check_books(store)
    engine.dispose()


async def test_what_was_learned_of_idle_power_outlives_a_restart(stage: Any) -> None:
    """The second start knows it at once; edges of 25 ms leave a second's mean 5 % uncertain."""
    async with running(stage.settings, clock=CLOCK, probes=stage.probes()) as first:
        await until(lambda: first.books.idle_watts)
    async with running(stage.settings, clock=CLOCK, probes=stage.probes()) as second:
        assert second.books.idle_watts[DEVICE] == pytest.approx(110, rel=0.06)


async def test_without_a_meter_requests_are_recorded_all_the_same(stage: Any) -> None:
    """Unknown energy is null with a reason; the daemon says that it is not ready."""
    async with served(stage.settings, clock=CLOCK, probes=[]) as daemon:
        record = await daemon.runtime.dispatch(ask(daemon, "hello"))
        faults = daemon.runtime.faults()
    assert record.energy_joules is None
    assert record.quality_reasons == ("no_meter",)
    assert "nothing can be measured" in faults[0]


async def test_a_device_that_is_not_measured_here_is_refused_at_the_start(stage: Any) -> None:
    """The message names the devices that are."""
    wrong = BackendSettings(name="x", kind="vllm", url="http://127.0.0.1:9", devices=["gpu:no"])
    settings = stage.settings.model_copy(update={"backends": [wrong]})
    with pytest.raises(ConfigError, match=f"measured: {DEVICE}"):
        async with running(settings, clock=CLOCK, probes=stage.probes()):
            pass


async def test_a_taken_port_is_said_before_anything_is_opened(stage: Any, daemon: Served) -> None:
    """Two daemons on one port: the second one says which."""
    taken = daemon.api_url.removeprefix("http://")
    api = stage.settings.api.model_copy(update={"listen": taken})
    settings = stage.settings.model_copy(update={"api": api, "host": "another"})
    with pytest.raises(ConfigError, match=f"cannot listen on {taken}"):
        async with served(settings, clock=CLOCK, probes=[]):
            pass
