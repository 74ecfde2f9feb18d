"""What sampling costs, and whether it loses energy, while the daemon passes traffic on."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve()
# What peers.py imports, it finds beside itself, because its environment has no melodi.
sys.path += [str(_HERE.parents[2] / "tests" / "support"), str(_HERE.parent)]
