"""`melodi requests`: look at what is stored."""

from typing import Annotated

import typer

from melodi.cli.options import Config, Json
from melodi.cli.output import print_json, print_records, record_json, say
from melodi.energy.record import Quality, Status


def requests(
    *,
    backend: Annotated[str | None, typer.Option(help="Only of this backend.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Only of this campaign.")] = None,
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only those that ended so.")] = None,
    quality: Annotated[Quality | None, typer.Option(help="Only of this quality.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE; several must all hold.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="RFC 3339, or how long ago: 1h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="As --since.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The records in the database, newest first."""
    from melodi.api.moments import parse_moment
    from melodi.clock import SystemClock, to_datetime
    from melodi.config import load
    from melodi.store.database import open_engine
    from melodi.store.queries import RequestFilter, parse_tag
    from melodi.store.records import RecordStore

    now = to_datetime(SystemClock().wall_ns())
    wanted = RequestFilter(
        backend=backend,
        model=model,
        campaign=campaign,
        task=task,
        status=status,
        quality=quality,
        tags=tuple(parse_tag(text) for text in tag or ()),
        since=None if since is None else parse_moment(since, now=now),
        until=None if until is None else parse_moment(until, now=now),
    )
    engine = open_engine(load(config).database.url)
    page = RecordStore(engine).page(wanted, limit=limit)
    engine.dispose()
    if as_json:
        items = [record_json(one) for one in page.items]
        print_json({"items": items, "next_cursor": page.next_cursor})
        return
    print_records(page.items)
    if page.next_cursor is not None:
        say(f"only the newest {limit} are shown; see more with --limit")
