"""`melodi requests`: look at what is stored."""

from typing import Annotated

import typer

from melodi.cli.filters import Filters, filtered
from melodi.cli.options import Config, Json
from melodi.cli.output import print_json, print_records, record_json, say
from melodi.cli.stored import opened


@filtered
def requests(
    *,
    filters: Filters,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on from there: its next_cursor.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The records in the database, newest first."""
    from melodi.api.filters import Filters as Wanted
    from melodi.clock import SystemClock, to_datetime
    from melodi.config import load

    wanted = Wanted(**filters).to_filter(to_datetime(SystemClock().wall_ns()))
    with opened(load(config).database.url) as store:
        page = store.page(wanted, cursor=cursor, limit=limit)
    if as_json:
        items = [record_json(one) for one in page.items]
        print_json({"items": items, "next_cursor": page.next_cursor})
        return
    if not page.items:
        say("no record matches")
        return
    print_records(page.items)
    if page.next_cursor is not None:
        say(f"only the newest {limit} are shown; see more with --limit, or --cursor with --json")
