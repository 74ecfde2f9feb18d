"""Finds the power and energy channels of a hwmon tree and says which power domain each one is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from collectors.base import Domain, Kind, Measure
from collectors.sysfs import number, text

_ATTRIBUTE = re.compile(r"(energy|power)(\d+)_(input|average)")
_PREFERENCE = ("energy_input", "power_input", "power_average")
_POWER_MARGIN = 1.1


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel; its domain's name stays the same when the kernel numbers chips anew."""

    path: Path
    domain: Domain
    group: str
    """What its domain may be a part of: a card or a socket."""
    is_part: bool


@dataclass(frozen=True, slots=True)
class _Role:
    """What a channel measures where a chip of this name calls it so."""

    chip: str
    called: str
    kind: Kind
    scope: str
    is_part: bool = False


# Names of chips and labels are those of the kernel's drivers, of sockets those of the firmware.
_ROLES = (
    _Role(r"amdgpu", r"(PPT)?", Kind.GPU, "gpu"),
    _Role(r"xe", r"(card)?", Kind.GPU, "card"),
    _Role(r"xe", r"pkg", Kind.GPU, "pkg", is_part=True),
    _Role(r"i915", r"", Kind.GPU, "card"),
    _Role(r"i915_gt\d+", r"", Kind.GPU, "tile", is_part=True),
    _Role(r"power_meter", r"Grace Power Socket \d+", Kind.CPU, "grace"),
    _Role(r"power_meter", r"CPU Power Socket \d+", Kind.CPU, "cpu_rail", is_part=True),
    _Role(r"power_meter", r"SysIO Power Socket \d+", Kind.CPU, "sysio_rail", is_part=True),
    _Role(r"power_meter", r"Module Power Socket \d+", Kind.PLATFORM, "module"),
)
_UNKNOWN = _Role("", "", Kind.PLATFORM, "unknown")


def find_channels(sysfs_root: Path) -> tuple[Channel, ...]:
    """Every channel under `sysfs_root` that tells energy or power, by the best it tells.

    Energy before power, power now before a mean. What cannot be told from what it measures is of
    the kind PLATFORM and is not to be added: it may hold what other meters count.
    """
    found = [
        _channel(chip, folder, *best)
        for chip in sorted((sysfs_root / "class/hwmon").glob("hwmon*"))
        for folder in (chip, chip / "device")  # the driver of ACPI meters keeps its files there
        for best in _best_of(folder)
    ]
    wholes = {
        one.group: one.domain.name
        for one in found
        if not one.is_part and one.domain.kind is not Kind.PLATFORM
    }
    return tuple(_placed(one, wholes.get(one.group)) for one in found)


def _best_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Each channel's number and the best of its attributes, such as `energy_input`."""
    told: dict[str, list[str]] = {}
    for path in folder.glob("*_*"):
        if match := _ATTRIBUTE.fullmatch(path.name):
            what, channel, how = match.groups()
            told.setdefault(channel, []).append(f"{what}_{how}")
    for channel in sorted(told, key=int):
        yield channel, min(told[channel], key=_PREFERENCE.index)


def _channel(chip: Path, folder: Path, channel: str, attribute: str) -> Channel:
    what, how = attribute.split("_")
    chip_name = text(chip / "name") or text(chip / "device/name") or "unnamed"
    device = (chip / "device").resolve().name if (chip / "device").exists() else ""
    owner = text(folder / f"power{channel}_oem_info")
    label = owner or text(folder / f"{what}{channel}_label")
    role = _role(chip_name, label)
    # Firmware names a socket for good; any other label repeats from one card to the next.
    place = (chip_name, owner) if owner else (chip_name, device, label or f"{what}{channel}")
    socket = owner.rpartition(" ")[2]
    refresh_ns = _refresh_ns(folder, channel, attribute)
    return Channel(
        path=folder / f"{what}{channel}_{how}",
        group=f"socket {socket}" if owner else f"card {device}",
        is_part=role.is_part,
        domain=Domain(
            name="hwmon:" + "-".join(_slug(part) for part in place if part),
            kind=role.kind,
            scope=role.scope,
            source=f"hwmon:{attribute}",
            measure=Measure.COUNTER if what == "energy" else Measure.GAUGE,
            refresh_ns=refresh_ns,
            lag_ns=0 if what == "energy" else (refresh_ns or 0) // 2,
            max_power_watts=_max_power_watts(folder, channel),
            summable=role.kind is not Kind.PLATFORM,
            description=f"{chip_name} {label}".strip(),
        ),
    )


def _role(chip: str, label: str) -> _Role:
    for role in _ROLES:
        if re.fullmatch(role.chip, chip) and re.fullmatch(role.called, label):
            return role
    return _UNKNOWN


def _placed(channel: Channel, whole: str | None) -> Channel:
    """The channel, not to be added where that of which it is a part is measured too."""
    if not channel.is_part or whole is None:
        return channel
    return replace(channel, domain=replace(channel.domain, summable=False, part_of=whole))


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9.:]+", "-", words.lower()).strip("-")


def _refresh_ns(folder: Path, channel: str, attribute: str) -> int | None:
    """As the chip says, in milliseconds; a mean tells nothing finer than what it is taken over."""
    mean_over = number(folder / f"power{channel}_average_interval")
    told_ms = mean_over if attribute == "power_average" else None
    told_ms = told_ms or number(folder / "update_interval")
    return None if told_ms is None else told_ms * 1_000_000


def _max_power_watts(folder: Path, channel: str) -> float | None:
    """A little above the highest limit that can be set, which the files give in microwatts."""
    cap_uw = number(folder / f"power{channel}_cap_max")
    return None if cap_uw is None else _POWER_MARGIN * cap_uw / 1e6
