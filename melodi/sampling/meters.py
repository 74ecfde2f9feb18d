"""Turns one domain's readings into an energy curve: cumulative joules with an edge per change."""

from collections.abc import Callable

from collectors.base import Domain, Measure, Reading
from collectors.counter import Counter, GapReason
from melodi.clock import NS_PER_SECOND
from melodi.energy.bins import Bin
from melodi.energy.edges import Edge, Edges
from melodi.energy.window import UNKNOWN_REFRESH_NS, Cut, Missing, cut

EDGES_KEPT = 20_000
"""At least; twice as many at most: 17 to 33 minutes of a sensor read 20 times a second."""
STALL_NS = NS_PER_SECOND
"""Polls further apart than this leave one long bin behind, which says so."""


class EnergyCurve:
    """The energy of one domain since its meter was opened; never falls, keeps its latest edges.

    One thread at a time feeds it. Others may ask at any time: `edges` only grows, until a shorter
    list takes its place. `renew` is called before each answer: it feeds what has been read and
    not been fed yet.
    """

    def __init__(self, domain: Domain, *, renew: Callable[[], object] = lambda: None) -> None:
        self.domain = domain
        self.renew = renew
        self._edges = Edges()
        self._counter = _counter_of(domain)
        self._anew: tuple[int, str] | None = None
        self._polled_ns: int | None = None
        self._power_uw: int | None = None
        self._stalled = False
        self._unshown_fj = 0

    @property
    def edges(self) -> Edges:
        """Its latest edges, after all that has been read by now."""
        self.renew()
        return self._edges

    def feed(self, reading: Reading) -> Bin | None:
        """Take a reading, in order of time; gives the bin that it completes, if any."""
        polled_ns, self._polled_ns = self._polled_ns, reading.at_ns
        if polled_ns is not None and reading.at_ns - polled_ns > STALL_NS:
            self._stalled = True
        if self._anew is not None:
            return self._begin_anew(reading, *self._anew)
        if self.domain.measure is Measure.GAUGE:
            return self._integrate(reading, polled_ns)
        if reading.energy_uj is None:
            return None
        step = self._counter.feed(reading.at_ns, reading.energy_uj)
        if not step or polled_ns is None:  # no change, or the first reading
            return None
        return self._step(reading, step, polled_ns)

    def suspended(self, awake_ns: int) -> None:
        """The machine slept since the last reading, and has been awake since `awake_ns` at latest.

        What it used asleep is in the counter and belongs to no monotonic time: the next bin is
        unmeasured, and ends once the sensor has surely been renewed.
        """
        self._anew = awake_ns, "suspended"

    def take_over(self, domain: Domain, now_ns: int) -> None:
        """Another meter tells of the domain from now on, and nobody what was used in between.

        Whoever fed it before has ended.
        """
        self.domain = domain
        self._polled_ns = self._power_uw = None
        self._anew = now_ns, "meter_changed"

    def cut(self, at_ns: int) -> Cut | Missing:
        """The place of a moment on the curve, or why it has none."""
        return cut(self.edges, at_ns)

    def _begin_anew(self, reading: Reading, since_ns: int, reason: str) -> Bin | None:
        refresh_ns = self.domain.refresh_ns or UNKNOWN_REFRESH_NS
        counts = self.domain.measure is Measure.COUNTER
        value = reading.energy_uj if counts else reading.power_uw
        if value is None or reading.at_ns < since_ns + refresh_ns:
            return None
        self._anew, self._stalled = None, False
        if not counts:
            self._power_uw = value
            at_ns, half_width_ns = reading.at_ns - self.domain.lag_ns, self.domain.lag_ns
            return self._append(at_ns, half_width_ns + reading.half_width_ns, None, reason)
        self._counter = _counter_of(self.domain)
        self._counter.feed(reading.at_ns, value)
        # It may be as old as a refresh is long.
        half_ns = refresh_ns // 2
        at_ns, half_width_ns = reading.at_ns - half_ns, half_ns + reading.half_width_ns
        return self._append(at_ns, half_width_ns, None, reason)

    def _step(self, reading: Reading, step: int | GapReason, polled_ns: int) -> Bin | None:
        """A counter: the edge lies where the change happened, between the polls around it."""
        earliest_ns, refresh_ns = polled_ns, self.domain.refresh_ns
        if refresh_ns is not None and reading.at_ns - refresh_ns > polled_ns:
            earliest_ns = reading.at_ns - refresh_ns
        at_ns = (earliest_ns + reading.at_ns) // 2
        half_ns = (reading.at_ns - earliest_ns) // 2 + reading.half_width_ns
        if isinstance(step, GapReason):
            return self._append(at_ns, half_ns, None, step)
        return self._append(at_ns, half_ns, step)

    def _integrate(self, reading: Reading, polled_ns: int | None) -> Bin | None:
        """A gauge: trapezoids between readings; nobody knows what happened in a stall.

        What a sensor shows late moves the edge as far back: the energy that trailing means add
        up to is what had been used at some moment of the time that they cover.
        """
        last_uw, self._power_uw = self._power_uw, reading.power_uw
        if reading.power_uw is None:
            return None
        at_ns = reading.at_ns - self.domain.lag_ns
        half_width_ns = reading.half_width_ns + self.domain.lag_ns
        if last_uw is None or polled_ns is None:
            return self._append(at_ns, half_width_ns, None, "unread")
        if self._stalled:
            return self._append(at_ns, half_width_ns, None, "stall")
        # uW x ns is 1 fJ, and the mean is half the sum: the remainder is carried, none is lost.
        twice = (last_uw + reading.power_uw) * (reading.at_ns - polled_ns) + self._unshown_fj
        energy_uj, self._unshown_fj = divmod(twice, 2 * NS_PER_SECOND)
        return self._append(at_ns, half_width_ns, energy_uj)

    def _append(
        self, at_ns: int, half_width_ns: int, energy_uj: int | None, reason: str | None = None
    ) -> Bin | None:
        stalled, self._stalled = self._stalled, False
        last = self._edges.last
        if last is None:
            self._edges.append(Edge(at_ns, half_width_ns, 0))
            return None
        total_uj, unmeasured_ns, stalls = last.total_uj, last.unmeasured_ns, last.stalls
        if energy_uj is None:
            unmeasured_ns += at_ns + half_width_ns - last.earliest_ns
            stalls += 1
        else:
            total_uj += energy_uj
            if stalled:
                stalls, reason = stalls + 1, reason or "stall"
        self._edges.append(Edge(at_ns, half_width_ns, total_uj, unmeasured_ns, stalls))
        if len(self._edges) > 2 * EDGES_KEPT:
            self._edges = self._edges.latest(EDGES_KEPT)
        widest_ns = max(half_width_ns, last.half_width_ns)
        # In the order of its fields: a class that is given names makes a dictionary of them.
        return Bin(self.domain.name, last.at_ns, at_ns, energy_uj, total_uj, widest_ns, reason)


def _counter_of(domain: Domain) -> Counter:
    return Counter(range_uj=domain.range_uj, max_power_watts=domain.max_power_watts)
