"""`melodi compare`: which of two took fewer joules."""

from typing import Annotated, Any

import typer

from melodi.cli.filters import Filters, filtered
from melodi.cli.options import Config, Json
from melodi.cli.output import number, print_json, print_table, say, span, text
from melodi.cli.stored import opened

METRICS = {
    "joules_per_output_token": "J per output token",
    "joules_per_request": "J per request",
    "joules_per_token": "J per token",
}
BY = "host, backend, model, policy, campaign, task, status, or tag:NAME."


@filtered
def compare(
    *,
    a: Annotated[str, typer.Argument(help="The one, such as a model's name.")],
    b: Annotated[str, typer.Argument(help="The other.")],
    filters: Filters,
    by: Annotated[str, typer.Option(help=BY)] = "model",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The ratio of what two took, each with a 95 % confidence interval.

    Doubtful records (sub_sensor, gap, none) are left out and counted; --quality asks for them.
    """
    from melodi.api.questions import CompareWanted, compare_answer
    from melodi.clock import SystemClock, to_datetime
    from melodi.config import load

    wanted = CompareWanted(by=by, a=a, b=b, **filters)
    query = wanted.to_query(to_datetime(SystemClock().wall_ns()))
    with opened(load(config).database.url) as store:
        answer = compare_answer(store, query)
    if as_json:
        print_json(answer)
    else:
        _print(answer)


def _print(answer: dict[str, Any]) -> None:
    sides = answer["a"], answer["b"]
    print_table(
        [
            "",
            *(f">{one['value']}" for one in sides),
            ">ratio",
            f">{answer['confidence']:.0%}",
            "less",
        ],
        (
            [
                said,
                number(one["a"]),
                number(one["b"]),
                number(one["ratio"]),
                span(one["low"], one["high"]),
                _less(one, sides),
            ]
            for name, said in METRICS.items()
            if (one := answer[name])["ratio"] is not None
        ),
    )
    for one in sides:
        left = sum(one["left_out"].values())
        say(f"{one['value']}: {one['count']} records" + (f", {left} left out" if left else ""))
    say(f"covered: {text(answer['footprint'])}, {text(answer['origin'])}")
    if answer["estimated"]:
        say("some of these records are estimated, not measured")


def _less(one: dict[str, Any], sides: tuple[dict[str, Any], dict[str, Any]]) -> str:
    """Whose joules are fewer, if that can be told."""
    if one["low"] is None:
        return "too few records"
    names = {"a": text(sides[0]["value"]), "b": text(sides[1]["value"]), None: "not shown"}
    return names[one["lower"]]
