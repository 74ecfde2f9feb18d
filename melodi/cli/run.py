"""`melodi run`: send a set of prompts to a backend and show what each cost."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melodi.cli.options import Config, Json
from melodi.cli.output import print_json, print_records, progress, record_json, say
from melodi.cli.remote import ask_first, send_through

if TYPE_CHECKING:
    from melodi.config import Settings
    from melodi.datasets.prompts import PromptSet
    from melodi.energy.record import EnergyRecord
    from melodi.inference.timeline import RequestTimeline

FINAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be sent where."""

    prompts: "PromptSet"
    backend: str
    model: str
    concurrency: int
    max_tokens: int | None
    campaign: str
    timeout_seconds: float | None

    def requests(self) -> list[dict[str, Any]]:
        """Each prompt as the fields of a request, the backend left out."""
        return [
            {
                "model": self.model,
                "messages": [dict(one) for one in prompt.messages],
                "options": {} if self.max_tokens is None else {"max_tokens": self.max_tokens},
                "tags": {"prompt_id": prompt.id},
                "campaign": self.campaign,
                "task": prompt.task,
                "timeout_seconds": self.timeout_seconds,
            }
            for prompt in self.prompts.prompts
        ]


def run(
    *,
    prompts: Annotated[str, typer.Option(help="A bundled set such as melodi-60, or a file.")],
    backend: Annotated[str, typer.Option(help="The name of a configured backend.")],
    model: Annotated[str, typer.Option(help="The model, as the backend calls it.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Send only so many.")] = None,
    task: Annotated[str | None, typer.Option(help="Send only prompts of this task.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draw the prompts in random order.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="How many at a time.")] = 1,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="End answers there.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0.1, help="Seconds per prompt.")] = None,
    campaign: Annotated[str | None, typer.Option(help="A label for these records.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Send prompts to a backend and show what each cost. Ends with 1 if one of them failed."""
    from melodi.config import load
    from melodi.datasets.prompts import load as load_prompts
    from melodi.logs import configure_logging

    settings = load(config)
    chosen = load_prompts(prompts, task=task, limit=limit, seed=seed)
    for problem in chosen.problems:
        say(f"{prompts}, line {problem.line} is left out: {problem.reason}")
    job = Job(
        chosen,
        backend,
        model,
        concurrency,
        max_tokens,
        campaign or chosen.name,
        timeout,
    )
    configure_logging()
    try:
        records = asyncio.run(_run(settings, job))
    except KeyboardInterrupt:
        say("stopped; what was sent until then is recorded: melodi requests")
        raise typer.Exit(130) from None
    if as_json:
        print_json({"items": [record_json(one) for one in records], "next_cursor": None})
    else:
        print_records(records)
    if any("idle_unknown" in one.quality_reasons for one in records):
        say("the idle power is not known yet, so joules are not split into active and idle share")
    failed = [one for one in records if one.status != "ok"]
    for error in dict.fromkeys(one.error for one in failed):
        count = sum(one.error == error for one in failed)
        say(f"{count} of {len(records)} failed: {error}")
    if failed or chosen.problems:
        raise typer.Exit(1)


async def _run(settings: "Settings", job: Job) -> "list[EnergyRecord]":
    """Send the prompts: from here, or through the daemon that keeps this host's books."""
    from melodi.daemon.ownership import AlreadyOwned

    with progress() as bar:
        sent = bar.add_task("prompts", total=len(job.prompts.prompts))

        def done(*_: object) -> None:
            bar.advance(sent)

        try:
            return await _send_from_here(settings, job, on_done=done)
        except AlreadyOwned as taken:
            if taken.owner is None or taken.owner.api_url is None:
                raise
            api_url = taken.owner.api_url
            say(f"the daemon with pid {taken.owner.pid} measures here: sending through {api_url}")
            prompts = [{"backend": job.backend, **one} for one in job.requests()]
            await ask_first(api_url, backend=job.backend, model=job.model)
            return await send_through(api_url, prompts, concurrency=job.concurrency, on_done=done)


async def _send_from_here(
    settings: "Settings", job: Job, *, on_done: Callable[..., None]
) -> "list[EnergyRecord]":
    """Measure, dispatch, and wait for every record to be final."""
    from melodi.clock import SystemClock
    from melodi.daemon.running import running
    from melodi.inference.readiness import check_servable
    from melodi.inference.request import PromptRequest

    async with running(settings, clock=SystemClock()) as runtime:
        for fault in runtime.faults():
            say(f"warning: {fault}")
        target = runtime.backend(job.backend)
        views = {view.name: view for view in await runtime.backends_known.look()}
        view = views[job.backend]
        check_servable(
            job.model,
            backend=view.name,
            kind=view.kind,
            error=view.error,
            models=[one.name for one in view.models],
        )
        requests = [PromptRequest(backend=target, **one) for one in job.requests()]
        ids: list[str] = []

        def done(_: PromptRequest, timeline: "RequestTimeline") -> None:
            ids.append(timeline.id)
            on_done()

        await runtime.dispatcher.dispatch_all(requests, concurrency=job.concurrency, on_done=done)
        return [await runtime.final(one, FINAL_SECONDS) for one in ids]
