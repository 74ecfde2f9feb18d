"""What MELODI and the server need that a machine with PyTorch may lack, from a folder of wheels."""

import subprocess
import sys
import tomllib
from pathlib import Path

from benchmarks.gpu.end_to_end.processes import ROOT

OURS = ("melodi.cli.serve", "melodi.daemon.serve", "melodi.api.app", "pynvml")
SERVER = ("transformers.cli.transformers", "accelerate", "torch", "fastapi", "openai", "pydantic")
SERVER += ("uvicorn",)
BESIDE = ("requests", "hypothesis", "pytest", "pytest-asyncio", "pytest-timeout")
"""What `transformers serve` and the tests need beside what MELODI needs."""


def download_line(python: str = "3.12") -> str:
    """A command that fetches every wheel, for a machine with x86-64 and that Python."""
    platforms = " ".join(
        f"--platform manylinux_{version}_x86_64" for version in ("2_28", "2_27", "2_17")
    )
    packages = " ".join(f"'{name}'" for name in (*requirements(), *BESIDE))
    return (
        f"pip download --only-binary=:all: --python-version {python} --implementation cp "
        f"{platforms} --platform manylinux2014_x86_64 --dest wheels "
        f"--constraint constraints.txt {packages}"
    )


def requirements() -> list[str]:
    """MELODI's own, as its project file has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


def install(wheels: Path, site: Path) -> Path:
    """Put every wheel of a folder into `site`, with nothing from anywhere else."""
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise SystemExit(f"there is no wheel in {wheels}; --wheels-line prints how to fetch them")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    pip += ["--no-compile", "--no-cache-dir", "--target", str(site)]
    subprocess.run([*pip, *map(str, files)], check=True)
    return site


def missing(python: str, modules: tuple[str, ...], env: dict[str, str]) -> list[str]:
    """Those that cannot be imported there, each with its reason."""
    found = []
    for name in modules:
        tried = subprocess.run(
            [python, "-c", f"import {name}"], env=env, capture_output=True, text=True, check=False
        )
        if tried.returncode != 0:
            found.append(f"{name} ({(tried.stderr.strip().splitlines() or ['?'])[-1]})")
    return found
