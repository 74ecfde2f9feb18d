"""Where this process runs, as far as it decides what a person can do about a missing meter."""

import platform
from dataclasses import dataclass
from pathlib import Path

_MARKS = (
    ".dockerenv",
    "run/.containerenv",
    "run/systemd/container",
    "var/run/secrets/kubernetes.io",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What lies between this process and the hardware."""

    container: bool = False
    virtual_machine: bool = False
    arm: bool = False


def surroundings(root: Path = Path("/")) -> Surroundings:
    """What is told by the files that container engines leave, and by the flags of the CPU."""
    try:
        processors = (root / "proc/cpuinfo").read_text()
    except OSError:
        processors = ""
    return Surroundings(
        container=any((root / mark).exists() for mark in _MARKS),
        virtual_machine="hypervisor" in processors.split(),
        arm=platform.machine().lower() in {"aarch64", "arm64"},
    )
