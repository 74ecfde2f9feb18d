"""Builds hwmon trees as the kernel's drivers lay them out, and renumbers them as a reboot does."""

import os
import shutil
from pathlib import Path


class HwmonTree:
    """A sysfs root with `class/hwmon` links to chips below their devices."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._links = root / "class/hwmon"
        self._links.mkdir(parents=True)

    def add(self, number: int, chip: str, device: str, **files: object) -> Path:
        """Add `hwmon<number>`: a chip of `device` with these files; gives its folder."""
        home = self.root / "devices" / device
        folder = home / f"hwmon/hwmon{number}"
        folder.mkdir(parents=True)
        (folder / "device").symlink_to("../..")
        (self._links / folder.name).symlink_to(os.path.relpath(folder, self._links))
        return self._fill(folder, chip, files)

    def add_acpi(self, number: int, label: str, power_uw: int, **files: object) -> Path:
        """Add an ACPI power meter, whose driver keeps the files at its device; gives that."""
        folder = self.add(number, "", f"ACPI000D:{number:02}")
        (folder / "name").unlink()
        about = {"power1_average": power_uw, "power1_oem_info": label, **files}
        return self._fill(self.root / f"devices/ACPI000D:{number:02}", "power_meter", about)

    def remove(self, number: int) -> None:
        """Take the chip away from whoever holds its files open, too."""
        link = self._links / f"hwmon{number}"
        for folder in (link.resolve(), (link / "device").resolve()):
            self._break_open_files(folder)
        shutil.rmtree((link / "device").resolve())
        link.unlink()

    def _fill(self, folder: Path, chip: str, files: dict[str, object]) -> Path:
        for name, content in {"name": chip, **files}.items():
            (folder / name).write_text(f"{content}\n")
        return folder

    def _break_open_files(self, folder: Path) -> None:
        """Let every descriptor of this process on a file there answer EIO."""
        broken = os.open("/proc/self/mem", os.O_RDONLY)  # reading its address 0 gives EIO
        for entry in list(Path("/proc/self/fd").iterdir()):
            if entry.is_symlink() and entry.readlink().parent == folder:
                os.dup2(broken, int(entry.name))
        os.close(broken)
