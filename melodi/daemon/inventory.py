"""What is known of this host, for those who read its records elsewhere."""

from pathlib import Path

import psutil

from melodi.clock import to_datetime
from melodi.daemon.runtime import Runtime


def keep_inventory(runtime: Runtime) -> None:
    """Keep what this host is and what it measures."""
    host, now = runtime.settings.host, to_datetime(runtime.clock.wall_ns())
    machine_id = Path("/etc/machine-id")
    runtime.store.hosts.keep(
        host,
        seen_at=now,
        machine_id=machine_id.read_text().strip() if machine_id.exists() else None,
        cpu=_cpu_name(),
        inventory={
            "cpu_count": psutil.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "domains": [domain.name for domain in runtime.sampler.domains],
        },
    )
    runtime.store.hosts.keep_domains(host, runtime.sampler.domains, seen_at=now)


def _cpu_name() -> str | None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)
