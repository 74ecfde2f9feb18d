"""Dividing anew beside a daemon that goes on measuring."""

import asyncio
from typing import Any

from waiting import PATIENCE_SECONDS

from melodi.analysis.recompute import Recomputing, Revised, recompute
from melodi.clock import NS_PER_MINUTE, SystemClock
from melodi.daemon.serve import Served, served
from melodi.inference.request import PromptRequest
from melodi.store.database import open_engine
from melodi.store.queries import RequestFilter
from melodi.store.records import RecordStore

CLOCK = SystemClock()
DEVICE = "gpu:SIMULATED-0"


def ask(daemon: Served, number: int) -> PromptRequest:
    return PromptRequest(
        backend=daemon.runtime.backend("sim"),
        model="simulated",
        prompt=f"tell me about {number} sheep",
        options={"max_tokens": 120},
    )


async def divided_anew(store: RecordStore, asked: Recomputing) -> Revised:
    return await asyncio.to_thread(store.ask, lambda one: recompute(one, asked))


async def test_records_may_be_divided_anew_while_a_daemon_writes(stage: Any) -> None:
    """What an earlier daemon kept is divided by tokens while the next one serves and records."""
    settings = stage.settings.model_copy(
        update={"attribution": stage.settings.attribution.model_copy(update={"policy": "time"})}
    )
    async with served(settings, clock=CLOCK, probes=stage.probes()) as first:
        earlier = {
            (await first.runtime.final(one.id, PATIENCE_SECONDS)).id
            for one in await asyncio.gather(
                *(first.runtime.dispatch(ask(first, k)) for k in range(4))
            )
        }
    engine = open_engine(settings.database.url)
    store = RecordStore(engine)
    now = CLOCK.wall_ns() // NS_PER_MINUTE
    asked = Recomputing(host="test", policy="tokens", first_minute=now - 5, last_minute=now)
    async with served(settings, clock=CLOCK, probes=stage.probes()) as second:
        running = [asyncio.create_task(second.runtime.dispatch(ask(second, k))) for k in range(4)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            # What the second daemon books in the same minute is kept once the minute is over.
            while (revised := await divided_anew(store, asked)).left:
                await asyncio.sleep(1)
        await asyncio.to_thread(store.revise, revised.batch)
        sent = await asyncio.gather(*running)
        later = {(await second.runtime.final(one.id, PATIENCE_SECONDS)).id for one in sent}
    changed = {one.before.id for one in revised.revisions}
    # One of the second daemon may have been final before they were read.
    assert earlier <= changed <= earlier | later
    records = {one.id: one for one in store.page(RequestFilter(), limit=100).items}
    assert records.keys() == earlier | later
    assert {id_ for id_, one in records.items() if one.revision == 2} == changed
    # By what divided most of its joules: on a busy host a request may have spent them waiting.
    assert "tokens" in {records[id_].policy for id_ in earlier}
    (line,) = store.ledger()
    assert abs(line.residual_joules) <= 1e-9 * line.measured_joules
    assert store.audit(DEVICE, host="test").difference_joules <= 1e-9 * line.measured_joules
    engine.dispose()
