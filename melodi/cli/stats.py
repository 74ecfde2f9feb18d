"""`melodi stats`: what requests cost, put together."""

from typing import Annotated, Any

import typer

from melodi.cli.filters import Filters, filtered
from melodi.cli.options import Config, Json
from melodi.cli.output import number, print_json, print_table, say, text
from melodi.cli.stored import opened

BY = "host, backend, model, policy, campaign, task, status; several with commas."


@filtered
def stats(
    *,
    filters: Filters,
    by: Annotated[str, typer.Option(help=BY)] = "backend,model",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Joules per request and per token, speed, carbon and cost of stored records.

    Doubtful records (sub_sensor, gap, none) are left out and counted; --quality asks for them.
    """
    from melodi.api.questions import StatsWanted, stats_answer
    from melodi.clock import SystemClock, to_datetime
    from melodi.config import load
    from melodi.store.figures import Rates

    settings = load(config)
    query = StatsWanted(by=by, **filters).to_query(to_datetime(SystemClock().wall_ns()))
    rates = Rates(**settings.carbon.model_dump())
    with opened(settings.database.url) as store:
        answer = stats_answer(store, query, rates=rates)
    if as_json:
        print_json(answer)
    else:
        _print(answer, query.by)


def _print(answer: dict[str, Any], by: tuple[str, ...]) -> None:
    items = answer["items"]
    table = {
        **{name: [text(one[name]) for one in items] for name in by},
        "footprint": [_footprint(one) for one in items],
        ">count": [str(one["count"]) for one in items],
        ">left": [str(sum(one["left_out"].values())) for one in items],
        ">J/req": [number(one["joules_per_request"]["mean"]) for one in items],
        ">p95": [number(one["joules_per_request"]["p95"]) for one in items],
        ">J/tok": [number(one["joules_per_output_token"]["mean"]) for one in items],
        ">tok/s": [number(one["output_tokens_per_second"]["mean"]) for one in items],
        ">TTFT s": [number(one["time_to_first_token_seconds"]["p50"]) for one in items],
        ">TPOT s": [number(one["time_per_output_token_seconds"]["p50"]) for one in items],
        ">Wh": [number(one["watt_hours"]) for one in items],
        ">gCO2e": [number(one["grams_co2e"]) for one in items],
        ">cost": [number(one["cost"]) for one in items],
    }
    known = {name: cells for name, cells in table.items() if set(cells) != {"-"} or name in by}
    print_table(list(known), zip(*known.values(), strict=True))
    if left := sum(sum(one["left_out"].values()) for one in items):
        say(f"{left} records of doubtful quality are left out; see them with --quality")
    if estimated := sum(one["qualities"].get("estimated", 0) for one in items):
        say(f"{estimated} of these records are estimated, not measured")
    say(f"TTFT and TPOT are medians; percentiles are within {answer['percentile_error_ratio']:.0%}")


def _footprint(one: dict[str, Any]) -> str:
    """What is covered, and where the numbers come from unless it is a sensor."""
    source = "" if one["origin"] == "sensor" else f" ({text(one['origin'])})"
    return text(one["footprint"]) + source
