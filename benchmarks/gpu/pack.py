"""Packs the probe into one file that runs wherever Python, PyTorch and nvidia-ml-py are.

python -m benchmarks.gpu.pack FILE.pyz
"""

import sys
import zipapp
from pathlib import Path

FOLDER = Path(__file__).parent


def pack(target: Path) -> None:
    """Write the archive; its folder is made where it is not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    zipapp.create_archive(
        FOLDER,
        target,
        main="probe.__main__:command",
        filter=lambda path: path.parts[0] == "probe" and path.suffix in ("", ".py"),
    )


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
