"""`melodi run`: send a set of prompts to a backend and show what each cost."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from melodi.cli.options import Config, Json
from melodi.cli.output import print_json, print_records, progress, record_json, say

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
    tags: dict[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None


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
        timeout_seconds=timeout,
    )
    configure_logging()
    records = asyncio.run(_run(settings, job))
    if as_json:
        print_json({"items": [record_json(one) for one in records], "next_cursor": None})
    else:
        print_records(records)
    failed = [one for one in records if one.status != "ok"]
    for error in dict.fromkeys(one.error for one in failed):
        count = sum(one.error == error for one in failed)
        say(f"{count} of {len(records)} failed: {error}")
    if failed or chosen.problems:
        raise typer.Exit(1)


async def _run(settings: "Settings", job: Job) -> "list[EnergyRecord]":
    """Measure, dispatch, and wait for every record to be final."""
    from melodi.clock import SystemClock
    from melodi.daemon.runtime import running
    from melodi.inference.request import PromptRequest

    async with running(settings, clock=SystemClock()) as runtime:
        for fault in runtime.faults():
            say(f"warning: {fault}")
        target = runtime.backend(job.backend)
        await runtime.backends_known.look()
        options = {} if job.max_tokens is None else {"max_tokens": job.max_tokens}
        requests = [
            PromptRequest(
                backend=target,
                model=job.model,
                messages=tuple(dict(one) for one in prompt.messages),
                options=options,
                tags=job.tags,
                campaign=job.campaign,
                task=prompt.task,
                timeout_seconds=job.timeout_seconds,
                prompt_id=prompt.id,
            )
            for prompt in job.prompts.prompts
        ]
        ids: list[str] = []
        with progress() as bar:
            sent = bar.add_task("prompts", total=len(requests))

            def done(_: PromptRequest, timeline: "RequestTimeline") -> None:
                ids.append(timeline.id)
                bar.advance(sent)

            await runtime.dispatcher.dispatch_all(
                requests, concurrency=job.concurrency, on_done=done
            )
        return [await runtime.final(one, FINAL_SECONDS) for one in ids]
