"""What runs in the process that reads the meters: `python -m melodi.sampling.child FD`."""

import os
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue

from collectors.registry import Probe
from melodi.child import leave_signals_to_parent
from melodi.clock import SystemClock
from melodi.logs import configure_logging
from melodi.sampling.plan import Plan
from melodi.sampling.process import Passes, Refused, Told, told
from melodi.sampling.reader import Pass
from melodi.sampling.readers import Readers
from melodi.sampling.watch import MeterWatch

BUNDLE_SECONDS = 0.05
"""Passes wait so long for others: they carry their times, and each message wakes the parent."""
PARENT_SECONDS = 1.0


def main() -> None:
    """Open the meters of the plan that the parent sends, and tell what they read until it ends."""
    leave_signals_to_parent()
    configure_logging()
    parent = os.getppid()
    connection = Connection(int(sys.argv[1]))
    plan: Plan = connection.recv()
    clock = SystemClock()
    try:
        probes = plan.probe(clock.monotonic_ns)
    except ValueError as error:
        connection.send(Refused(str(error)))
        return
    outbox: SimpleQueue[Pass | Told] = SimpleQueue()
    readers = Readers(period_of=plan.period_ns, clock=clock, deliver=outbox.put)

    def follow(probes: Sequence[Probe]) -> None:
        readers.let_go(probes)
        outbox.put(told(probes))
        readers.take_up(probes)

    follow(probes)
    watch = MeterWatch(plan, probes, clock=clock, on_change=follow)
    threading.Thread(target=_send_all, args=[outbox, connection], daemon=True).start()
    readers.start()
    watch.start()
    _wait_for_the_end(connection, parent)
    watch.stop()
    readers.stop()


def _wait_for_the_end(connection: Connection, parent: int) -> None:
    """Until the parent says so or has died: another process may hold its end of the line open."""
    while os.getppid() == parent:
        try:
            if connection.poll(PARENT_SECONDS):
                connection.recv()
                return
        except (EOFError, OSError):
            return


def _send_all(outbox: "SimpleQueue[Pass | Told]", connection: Connection) -> None:
    """Send what is there, the passes between two changes of the meters together."""
    while True:
        passes: list[Pass] = []
        waiting = [outbox.get()]
        while not outbox.empty():
            waiting.append(outbox.get())
        try:
            for one in waiting:
                if isinstance(one, Pass):
                    passes.append(one)
                    continue
                _send_passes(passes, connection)
                passes = []
                connection.send(one)
            _send_passes(passes, connection)
        except OSError:  # the parent has ended, and so does this process
            return
        time.sleep(BUNDLE_SECONDS)


def _send_passes(passes: list[Pass], connection: Connection) -> None:
    if passes:
        connection.send(Passes(tuple(passes), time.process_time()))


if __name__ == "__main__":
    main()
