"""Builds powercap trees as the kernel lays them out, and breaks them as the world does."""

import ctypes
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

INTEL_RANGE_UJ = 262_143_328_850
EPYC_RANGE_UJ = 65_532_610_987
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


class PowercapTree:
    """A sysfs root with `class/powercap` links into `devices/virtual/powercap`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._links = root / "class/powercap"
        self._devices = root / "devices/virtual/powercap"
        self._links.mkdir(parents=True)

    def add(
        self, zone: str, name: str, *, energy_uj: int = 0, range_uj: int = INTEL_RANGE_UJ
    ) -> None:
        """Add a zone such as `intel-rapl:0` or, inside it, `intel-rapl:0:1`."""
        path = self._device(zone)
        path.mkdir(parents=True)
        control = path.relative_to(self._devices).parts[0]
        for link, target in ((control, self._devices / control), (zone, path)):
            if not (self._links / link).is_symlink():
                (self._links / link).symlink_to(os.path.relpath(target, self._links))
        (path / "name").write_text(f"{name}\n")
        (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (path / "subsystem").symlink_to(os.path.relpath(self._links, path))
        self.set(zone, energy_uj)
        self.energy_file(zone).chmod(0o400)

    def set(self, zone: str, energy_uj: int) -> None:
        """Let the counter show this, in the same file as before, as the kernel does."""
        self.energy_file(zone).write_text(f"{energy_uj}\n")

    def limit(self, zone: str, watts: float) -> None:
        """Show a long-term power limit, which everybody may read."""
        path = self._device(zone) / "constraint_0_power_limit_uw"
        path.write_text(f"{round(watts * 1e6)}\n")

    @contextmanager
    def drawing(self, watts: Mapping[str, float]) -> Iterator[None]:
        """Let the zones' counters run in real time, each at its own power, every 2 ms.

        The power may be changed in `watts` meanwhile.
        """
        stopping = threading.Event()
        at_ns = time.monotonic_ns()
        drawn_uj = dict.fromkeys(watts, 0.0)
        descriptors = {}
        for zone in watts:
            self.energy_file(zone).chmod(0o600)
            descriptors[zone] = os.open(self.energy_file(zone), os.O_WRONLY)

        def run() -> None:
            nonlocal at_ns
            while not stopping.wait(0.002):
                passed_ns = time.monotonic_ns() - at_ns
                at_ns += passed_ns
                for zone, descriptor in descriptors.items():
                    drawn_uj[zone] += watts[zone] * passed_ns / 1_000
                    # One write of one length: whoever reads meanwhile sees a whole number.
                    os.pwrite(descriptor, b"%020d\n" % round(drawn_uj[zone]), 0)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
            for descriptor in descriptors.values():
                os.close(descriptor)

    def remove(self, zone: str) -> None:
        """Take the zone away from whoever holds it open, too."""
        self.break_open_files(zone)
        (self._links / zone).unlink()
        shutil.rmtree(self._device(zone))

    def break_open_files(self, zone: str) -> None:
        """Let every descriptor of this process on the zone's counter answer EIO."""
        target = str(self.energy_file(zone).resolve())
        broken = os.open("/proc/self/mem", os.O_RDONLY)  # reading its address 0 gives EIO
        for entry in list(Path("/proc/self/fd").iterdir()):
            if entry.is_symlink() and str(entry.readlink()) == target:
                os.dup2(broken, int(entry.name))
        os.close(broken)

    def forbid(self, zone: str) -> None:
        """Take reading away, even from its owner."""
        self.energy_file(zone).chmod(0)

    def energy_file(self, zone: str) -> Path:
        return self._device(zone) / "energy_uj"

    def _device(self, zone: str) -> Path:
        control, *indices = zone.split(":")
        parts = [":".join([control, *indices[: n + 1]]) for n in range(len(indices))]
        return self._devices.joinpath(control, *parts)


@contextmanager
def without_privilege() -> Iterator[None]:
    """Run as nobody where the tests run as root, whom no file mode stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def obey_file_modes() -> None:
    """To be called in a new process: what it starts is stopped by file modes, though it be root."""
    if os.geteuid() != 0:
        return
    library = ctypes.CDLL(None, use_errno=True)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        if library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the bounding set cannot be narrowed")
