"""Finds the RAPL zones in a powercap tree and says which power domain each one is."""

import re
from dataclasses import dataclass
from pathlib import Path

from collectors.base import Kind
from collectors.sysfs import number, text

_ZONE = re.compile(r"intel-rapl(-mmio)?(:\d+){1,2}")
_PACKAGE = re.compile(r"package-(\d+)(?:-die-(\d+))?")
_PSYS = re.compile(r"psys(?:-(\d+))?")


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone worth metering; its `domain` stays the same when its index changes."""

    path: Path
    domain: str
    """`package:0`, `package:0-die:1`, `dram:0`, `psys:0`."""
    kind: Kind
    range_uj: int | None
    die_of: str | None = None
    """What this zone is one die's part of: `package:0`, `dram:0`."""

    @property
    def energy_path(self) -> Path:
        return self.path / "energy_uj"


def find_zones(sysfs_root: Path) -> tuple[Zone, ...]:
    """Every package, memory and platform zone under `sysfs_root`, each domain once.

    Cores and uncore are left out: their package contains them. What both MSR and MMIO show counts
    once, by MSR. An index is not a socket, so only the zones' names are believed.
    """
    paths = {path.name: path for path in _zone_paths(sysfs_root)}
    names = {index: name for index, path in paths.items() if (name := text(path / "name"))}
    zones: dict[str, Zone] = {}
    for index in sorted(names, key=_by_preference):
        parent = names.get(index.rpartition(":")[0], "")
        zone = _zone(paths[index], names[index], parent)
        if zone is not None:
            zones.setdefault(zone.domain, zone)
    return tuple(zones.values())


def _zone_paths(sysfs_root: Path) -> list[Path]:
    listed = list((sysfs_root / "class/powercap").glob("intel-rapl*:*"))
    # A container may be given the devices alone, without the links to them in class/.
    found = listed or (sysfs_root / "devices/virtual/powercap").rglob("intel-rapl*:*")
    return [path for path in found if _ZONE.fullmatch(path.name)]


def _by_preference(index: str) -> tuple[bool, list[int]]:
    control, *numbers = index.split(":")
    return control.endswith("mmio"), [int(number) for number in numbers]


def _zone(path: Path, name: str, parent: str) -> Zone | None:
    if match := _PSYS.fullmatch(name):
        return Zone(path, f"psys:{match[1] or 0}", Kind.PLATFORM, _range_uj(path))
    scope, kind, package = "package", Kind.CPU, name
    if name == "dram":
        scope, kind, package = "dram", Kind.DRAM, parent
    match = _PACKAGE.fullmatch(package)
    if match is None:
        return None
    socket, die = match.groups()
    whole = f"{scope}:{socket}"
    if die is None:
        return Zone(path, whole, kind, _range_uj(path))
    return Zone(path, f"{whole}-die:{die}", kind, _range_uj(path), die_of=whole)


def _range_uj(path: Path) -> int | None:
    return number(path / "max_energy_range_uj")
