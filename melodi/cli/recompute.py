"""`melodi recompute`: divide the joules of stored records anew."""

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from melodi.cli.options import Config, Json
from melodi.cli.output import number, print_json, print_table, say, text
from melodi.cli.stored import opened

if TYPE_CHECKING:
    from melodi.analysis.moved import Moved
    from melodi.analysis.recompute import Recomputing, Revised
    from melodi.config import Settings


class PolicyName(StrEnum):
    """How requests at the same time share joules."""

    AUTO = "auto"
    STEPS = "steps"
    TOKENS = "tokens"
    TIME = "time"


def recompute(
    *,
    policy: Annotated[PolicyName, typer.Option(help="How requests at the same time share joules.")],
    since: Annotated[str, typer.Option(help="RFC 3339, or how long ago: 1h, 7d.")],
    until: Annotated[str | None, typer.Option(help="As --since; default: now.")] = None,
    backend: Annotated[str | None, typer.Option(help="Only records of this backend.")] = None,
    host: Annotated[str | None, typer.Option(help="Of this host; default: this one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, change nothing.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Divide the joules of stored records anew, by kept bins and token times.

    Each record gets a new revision, and ledger and statistics follow. It may run beside a daemon.
    """
    from melodi.analysis.recompute import Recomputing
    from melodi.api.moments import parse_moment
    from melodi.clock import SystemClock, minute_of, to_datetime
    from melodi.config import load

    settings = load(config)
    now = to_datetime(SystemClock().wall_ns())
    asked = Recomputing(
        host=host or settings.host,
        policy=policy.value,
        first_minute=minute_of(parse_moment(since, now=now)),
        last_minute=minute_of(now if until is None else parse_moment(until, now=now)),
        backend=backend,
    )
    revised = _revised(settings, asked, dry_run=dry_run)
    if as_json:
        _print_json(asked, revised, dry_run=dry_run)
    else:
        _print(revised, dry_run=dry_run)


def _revised(settings: "Settings", asked: "Recomputing", *, dry_run: bool) -> "Revised":
    """What is to change; unless `dry_run` it has been."""
    from melodi.analysis.recompute import recompute as recomputed
    from melodi.durations import format_duration
    from melodi.errors import StoreError

    with opened(settings.database.url) as store:
        revised = store.ask(lambda connection: recomputed(connection, asked))
        if not revised.revisions and revised.left:
            raise StoreError(
                f"none of {revised.left} records can be divided anew: what they were in is no "
                f"longer kept, or not yet; it is written each minute, and kept for "
                f"{format_duration(settings.retention.replay)} (retention.replay)"
            )
        if not dry_run:
            store.revise(revised.batch)
    return revised


def _print_json(asked: "Recomputing", revised: "Revised", *, dry_run: bool) -> None:
    from melodi.analysis.moved import moved_by_model

    print_json(
        {
            "host": asked.host,
            "policy": asked.policy,
            "dry_run": dry_run,
            "revised": len(revised.revisions),
            "left": revised.left,
            "items": [asdict(one) for one in moved_by_model(revised.revisions)],
        }
    )


def _print(revised: "Revised", *, dry_run: bool) -> None:
    from melodi.analysis.moved import moved_by_model

    items = moved_by_model(revised.revisions)
    if not items:
        say("no record matches")
        return
    _print_table(items)
    said = "would get" if dry_run else "got"
    say(f"{len(revised.revisions)} records {said} a new revision")
    if revised.left:
        say(f"{revised.left} records stay as they are: what they were in is not all kept")


def _print_table(items: "list[Moved]") -> None:
    print_table(
        ["model", ">records", ">J before", ">J after", ">moved", ">most", ">newly known"],
        (
            [
                text(one.model),
                str(one.count),
                number(one.before_joules),
                number(one.after_joules),
                _percent(one.median_moved_ratio),
                _percent(one.most_moved_ratio),
                str(one.newly_known),
            ]
            for one in items
        ),
    )
    say("moved: by how much a record's joules changed, in the median and at most")


def _percent(ratio: float | None) -> str:
    return text(None) if ratio is None else f"{ratio:.1%}"
