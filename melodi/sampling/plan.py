"""Which meters are read, where they are looked for, and how often they are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collectors.base import NowNs
from collectors.registry import Probe, probe, probe_again

_FAST = ("nvml", "simulated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the settings say of meters; the same for whoever opens them."""

    use: str | tuple[str, ...]
    """`auto` or the names of collectors."""
    sysfs_root: Path
    simulated_url: str | None
    gpu_period_ns: int
    other_period_ns: int

    def period_ns(self, collector: str) -> int:
        """How often a collector is read."""
        return self.gpu_period_ns if collector in _FAST else self.other_period_ns

    def probe(self, now_ns: NowNs) -> list[Probe]:
        """Open the meters; ValueError for one that does not exist."""
        return probe(
            self.use,
            now_ns=now_ns,
            sysfs_root=self.sysfs_root,
            simulated_url=self.simulated_url,
        )

    def probe_again(self, probes: Sequence[Probe], now_ns: NowNs) -> list[Probe]:
        """Those meters as they are now."""
        return probe_again(
            probes,
            use=self.use,
            now_ns=now_ns,
            sysfs_root=self.sysfs_root,
            simulated_url=self.simulated_url,
        )
