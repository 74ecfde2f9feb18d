"""Opens the parts of a MELODI in order, and closes them in reverse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path

import structlog

from collectors.registry import Probe
from melodi.clock import NS_PER_MINUTE, Clock
from melodi.config import Settings, data_folder
from melodi.daemon.inventory import keep_inventory
from melodi.daemon.meters import open_apart, plan_of, probe_meters
from melodi.daemon.ownership import owning
from melodi.daemon.recovery import recover
from melodi.daemon.runtime import Runtime
from melodi.daemon.vigil import keep_vigil
from melodi.memory import give_back
from melodi.sampling.process import MeterProcess
from melodi.sampling.settle import first_edges
from melodi.sampling.watch import MeterWatch
from melodi.store.database import database_path, open_engine
from melodi.store.migrate import upgrade
from melodi.store.records import RecordStore
from melodi.store.spool import Spool, spool_folder
from melodi.store.windows import WindowStore
from melodi.store.writer import RecordWriter

HOUSEKEEPING_SECONDS = 60
BOOKS_GRACE_SECONDS = 5.0
FIRST_LOOK_SECONDS = 1.0
WRITER_GRACE_SECONDS = 10.0

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock,
    probes: Sequence[Probe] | None = None,
    api_url: str | None = None,
) -> AsyncIterator[Runtime]:
    """A MELODI that measures and records while the context lasts.

    Takes the lock of this host and database, opens the database, then the meters, then begins
    to sample; closes in reverse, so that the last requests still get their energy. `probes`
    replaces looking for meters. Raises StoreError and ConfigError where that cannot be, among
    them AlreadyOwned.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(books_lock(settings, api_url))
        await asyncio.to_thread(upgrade, settings.database.url)
        engine = open_engine(settings.database.url)
        stack.callback(engine.dispose)
        store = RecordStore(engine)
        spool = _spool(settings)
        await asyncio.to_thread(recover, store, spool.folder, host=settings.host)
        stack.callback(spool.close)
        writer = RecordWriter(store)
        stack.push_async_callback(asyncio.to_thread, writer.close, WRITER_GRACE_SECONDS)
        process, found = await asyncio.to_thread(_open_meters, settings, clock, probes)
        loop = asyncio.get_running_loop()
        windows = WindowStore(engine)
        await asyncio.to_thread(windows.interrupt, settings.host)
        runtime = Runtime(
            settings,
            clock=clock,
            probes=found,
            store=store,
            writer=writer,
            spool=spool,
            windows=windows,
            process=process,
            on_change=lambda changed: _follow(runtime, changed, loop),
        )
        await asyncio.to_thread(keep_inventory, runtime)
        _start(runtime, stack)
        if process is None and probes is None:
            watch = MeterWatch(
                plan_of(settings),
                found,
                clock=clock,
                on_change=lambda changed: _follow(runtime, changed, loop).result(),
            )
            watch.start()
            # Beside the loop, which may be asked meanwhile to take up what was found last.
            stack.push_async_callback(asyncio.to_thread, watch.stop)
        vigil = asyncio.create_task(keep_vigil(runtime.faults))
        stack.push_async_callback(_cancelled, vigil)
        await first_edges(runtime.sampler.curves)
        await asyncio.to_thread(runtime.discovery.wait, FIRST_LOOK_SECONDS)
        yield runtime


def _start(runtime: Runtime, stack: AsyncExitStack) -> None:
    """Let the parts run until the stack ends."""
    stack.push_async_callback(asyncio.to_thread, _keep_idle, runtime)
    stack.callback(runtime.sampler.stop)
    # The last bins wait for what the backends' processes did in them.
    stack.push_async_callback(asyncio.to_thread, runtime.discovery.stop)
    stack.push_async_callback(asyncio.to_thread, runtime.books.stop, BOOKS_GRACE_SECONDS)
    stack.push_async_callback(runtime.dispatcher.close)
    stack.callback(runtime.telling.close)
    stack.callback(runtime.windows.close)
    runtime.sampler.start()
    runtime.books.start()
    runtime.discovery.start()
    for work in (_housekeeping(runtime), runtime.loaded.run(), runtime.engines.run()):
        stack.push_async_callback(_cancelled, asyncio.create_task(work))


def books_lock(settings: Settings, api_url: str | None) -> AbstractContextManager[None]:
    """The lock of this host's books in this database; entering it raises AlreadyOwned."""
    return owning(
        _state_folder(settings),
        host=settings.host,
        database_url=settings.database.url,
        api_url=api_url,
    )


def _open_meters(
    settings: Settings, clock: Clock, given: Sequence[Probe] | None
) -> tuple[MeterProcess | None, Sequence[Probe]]:
    """What was given or is found here, with the process that reads it where there is to be one."""
    if given is not None:
        return None, given
    if settings.sampling.process:
        return open_apart(settings)
    return None, probe_meters(settings, clock)


def _follow(
    runtime: Runtime, probes: list[Probe], loop: asyncio.AbstractEventLoop
) -> "Future[None]":
    """Have the loop take up meters that came later, or may be read only now."""

    async def follow() -> None:
        try:
            runtime.follow(probes)
            await asyncio.to_thread(keep_inventory, runtime)
        except Exception:
            log.exception("meters_not_taken_up")

    return asyncio.run_coroutine_threadsafe(follow(), loop)


def _spool(settings: Settings) -> Spool:
    folder = spool_folder(
        _state_folder(settings), host=settings.host, database_url=settings.database.url
    )
    return Spool(folder)


def _state_folder(settings: Settings) -> Path:
    """Beside the database where it is a file, so that whoever shares it shares this too."""
    path = database_path(settings.database.url)
    return data_folder() if path is None else path.parent


async def _housekeeping(runtime: Runtime) -> None:
    """Once a minute: who are the backends, what is known of idle power, what is kept too long.

    And memory that is free, which goes back to the system.
    """
    while True:
        try:
            await runtime.backends_known.look()
        except Exception as error:  # noqa: BLE001  the next round may do better
            log.warning("backends_not_asked", reason=repr(error))
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        await asyncio.to_thread(_keep_idle, runtime)
        await asyncio.to_thread(_forget, runtime)
        await asyncio.to_thread(give_back)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _keep_idle(runtime: Runtime) -> None:
    try:
        runtime.store.hosts.keep_idle_watts(runtime.settings.host, runtime.books.idle_watts)
    except Exception as error:  # noqa: BLE001  it will be learned again
        log.warning("idle_power_not_kept", reason=str(error))


def _forget(runtime: Runtime) -> None:
    """Throw away what can no longer be asked to be divided anew."""
    oldest_ns = runtime.clock.wall_ns() - runtime.settings.retention.replay
    try:
        runtime.store.forget_kept(runtime.settings.host, before_minute=oldest_ns // NS_PER_MINUTE)
    except Exception as error:  # noqa: BLE001  the next round may do better
        log.warning("old_bins_not_forgotten", reason=str(error))
