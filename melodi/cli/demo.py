"""`melodi demo`: joules per prompt on this machine, with nothing installed or configured."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melodi.cli.options import Json
from melodi.cli.output import (
    number,
    print_json,
    print_table,
    progress,
    record_json,
    say,
    span,
    text,
)

if TYPE_CHECKING:
    from melodi.daemon.demo import Demonstration, Measured

PROMPT_WIDTH = 26


def demo(
    *,
    requests: Annotated[int, typer.Option(min=1, help="How many prompts to send.")] = 12,
    exit_: Annotated[bool, typer.Option("--exit", help="End after the table.")] = False,
    as_json: Json = False,
) -> None:
    """Send prompts to a simulated backend and show joules beside the simulator's true joules."""
    from melodi.logs import configure_logging
    from melodi.serving import run

    configure_logging()
    run(_demo(requests, stay=not exit_, as_json=as_json))


async def _demo(count: int, *, stay: bool, as_json: bool) -> None:
    from melodi.daemon.demo import books_of, demonstration, send_prompts
    from melodi.daemon.serve import until_signal

    say("listening to the idle device for a moment ...")
    async with demonstration() as running:
        with progress() as bar:
            sent = bar.add_task("prompts", total=count)
            measured = await send_prompts(running, count, on_done=lambda: bar.advance(sent))
        books = await books_of(running, measured)
        if as_json:
            print_json(_as_json(measured, books))
        else:
            _print(measured, books)
        if stay:
            for line in _addresses(running):
                say(line)
            await until_signal()


def _as_json(measured: "Sequence[Measured]", books: dict[str, float]) -> dict[str, Any]:
    requests = [record_json(one.record) | {"true_joules": one.true_joules} for one in measured]
    return {"requests": requests, **books}


def _print(measured: "Sequence[Measured]", books: dict[str, float]) -> None:
    headings = [
        "prompt",
        "task",
        ">in",
        ">out",
        ">seconds",
        ">joules",
        ">low..high",
        ">true",
        ">off",
    ]
    print_table(headings, (_row(one) for one in measured))
    total = books["measured_joules"]
    for name in ("attributed", "idle", "other"):
        share = books[f"{name}_joules"] / total
        print(f"{number(books[f'{name}_joules'], 5):>10} J  {name:<10} {share:6.1%}")  # noqa: T201
    ratio = books["residual_ratio"]
    print(f"{number(total, 5):>10} J  measured   (residual {ratio:.0e})")  # noqa: T201


def _row(one: "Measured") -> list[str]:
    record = one.record
    joules = record.energy_joules
    off = None if joules is None else joules / one.true_joules - 1
    prompt = " ".join(one.prompt.text.split())
    short = prompt if len(prompt) <= PROMPT_WIDTH else prompt[: PROMPT_WIDTH - 1] + "…"
    return [
        short,
        text(one.prompt.task),
        text(record.input_tokens),
        text(record.output_tokens),
        number(record.duration_seconds),
        number(joules),
        span(record.low_joules, record.high_joules),
        number(one.true_joules),
        "-" if off is None else f"{off:+.1%}",
    ]


def _addresses(running: "Demonstration") -> list[str]:
    api = running.daemon.api_url
    gateway = next(iter(running.daemon.gateway_urls.values()))
    return [
        "",
        "All of this was simulated: the device, its power and the answers.",
        f"records   {api}/v1/requests",
        f"ledger    {api}/v1/ledger",
        f"docs      {api}/docs",
        f"gateway   {gateway}/v1   (an OpenAI base URL: what you send there is recorded too)",
        "Ctrl-C ends it.",
    ]
