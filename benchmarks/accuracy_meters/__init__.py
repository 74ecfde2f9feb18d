"""What the energy of a window is off by, for each family of GPUs and each method."""

import sys
from pathlib import Path

# By path, because pyRAPL's wheel brings a package `tests` that hides ours.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "support"))
