"""When the next beat is due: absolute deadlines, and a missed beat is skipped, not caught up."""


class Ticks:
    """Deadlines at `start_ns` + k x `period_ns` on the monotonic clock."""

    def __init__(self, *, start_ns: int, period_ns: int) -> None:
        if period_ns <= 0:
            raise ValueError("a period must be longer than 0; give one such as 50ms")
        self.deadline_ns = start_ns
        self._period_ns = period_ns

    def beat(self, now_ns: int) -> tuple[int, int]:
        """Take the due beat: how late it is in ns, and how many whole beats were missed."""
        late_ns = now_ns - self.deadline_ns
        if late_ns < 0:
            raise ValueError("beaten before the deadline; wait for deadline_ns")
        missed = late_ns // self._period_ns
        self.deadline_ns += (missed + 1) * self._period_ns
        return late_ns, missed
