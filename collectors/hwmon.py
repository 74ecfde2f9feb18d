"""Reads power and energy from the hwmon tree: Grace sockets, AMD and Intel GPUs, and others."""

from collections import Counter
from pathlib import Path

from collectors.base import Conditions, Domain, NowNs, Readings
from collectors.errors import ReadFailed, Unavailable
from collectors.hwmon_channels import Channel, find_channels
from collectors.meters import open_each, read_each
from collectors.sysfs import FileMeter

_ABSENT = (
    "nothing to do without a GPU of AMD or Intel and without a Grace CPU; with one, load its "
    "driver (amdgpu, xe, i915, acpi_power_meter), or in a container start it with "
    "--volume /sys:/host/sys:ro --env MELODI_COLLECTORS__SYSFS_ROOT=/host/sys"
)
_GRANT = (
    "run the daemon as a systemd service with AmbientCapabilities=CAP_DAC_READ_SEARCH; or have a "
    "udev rule give this file, and nothing else, a group of the daemon's user and mode 0440"
)
_AMBIGUOUS = "nothing tells these sensors apart after a reboot; ask for a label in their driver"


def _open(channel: Channel, *, sysfs_root: Path, now_ns: NowNs) -> FileMeter:
    name = channel.domain.name

    def find() -> Path | None:
        """The chip may have come back under another number."""
        channels = find_channels(sysfs_root)
        return next((one.path for one in channels if one.domain.name == name), None)

    return FileMeter(channel.domain, find, grant=_GRANT, now_ns=now_ns)


class HwmonCollector:
    """Every hwmon channel of energy or power that this process may read.

    Raises Unavailable where there is none, NotPermitted where there are and they may not be read,
    ReadFailed where they may be and none gives a number.
    """

    def __init__(self, *, now_ns: NowNs, sysfs_root: Path = Path("/sys")) -> None:
        channels = find_channels(sysfs_root)
        if not channels:
            reason = f"no power or energy under {sysfs_root}/class/hwmon"
            raise Unavailable(reason, remedy=_ABSENT)
        seen = Counter(channel.domain.name for channel in channels)

        def open_one(channel: Channel) -> FileMeter:
            if seen[channel.domain.name] > 1:
                raise ReadFailed(f"several sensors are {channel.domain.name}", remedy=_AMBIGUOUS)
            return _open(channel, sysfs_root=sysfs_root, now_ns=now_ns)

        self._meters, self.unproven = open_each(open_one, channels)
        """Why channels that exist are not among the domains."""

    @property
    def name(self) -> str:
        return "hwmon"

    @property
    def domains(self) -> tuple[Domain, ...]:
        return tuple(meter.domain for meter in self._meters)

    def read(self) -> Readings:
        return read_each(self._meters)

    def conditions(self) -> tuple[Conditions, ...]:
        return ()

    def close(self) -> None:
        for meter in self._meters:
            meter.close()
