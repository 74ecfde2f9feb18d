"""What is built holds what it needs, nothing else, and runs where there is no checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKED = {
    "melodi": "melodi",
    "collectors": "collectors",
    "prompts": "melodi/prompts",
    "migrations": "melodi/migrations",
}
"""The folders of the repository that a wheel holds, and where."""


def run(*words: str | Path, folder: Path, **environment: str) -> str:
    """What a command printed, in a folder of its own; a failure shows what it said."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MELODI_")}
    ended = subprocess.run(
        words,
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@dataclass(frozen=True)
class Built:
    """Both distributions; the wheel was made from the sdist."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built as a release is, with what is installed here."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


@dataclass(frozen=True)
class Installed:
    """An environment of its own with the wheel, and an empty folder to work in."""

    scripts: Path
    folder: Path

    def run(self, name: str, *words: str) -> str:
        data = str(self.folder.parent / "data")
        return run(self.scripts / name, *words, folder=self.folder, XDG_DATA_HOME=data)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a new environment that borrows its dependencies from this one.

    A folder named in a .pth file is searched, but its own .pth files are not read: what this
    environment has of MELODI, which is a pointer to the checkout, stays behind.
    """
    base = tmp_path_factory.mktemp("elsewhere")
    environment, folder = base / "venv", base / "empty"
    folder.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", environment, folder=folder)
    scripts = environment / "bin"
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--no-compile", built.wheel, folder=folder)
    site = Path(
        run(
            scripts / "python",
            *("-c", "import sysconfig; print(sysconfig.get_path('purelib'))"),
            folder=folder,
        ).strip()
    )
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(scripts, folder)


def test_the_wheel_holds_the_sources_and_nothing_else(built: Built) -> None:
    """Both packages with their marks for types, prompts and migrations inside; no tests."""
    expected = {
        f"{inside}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in PACKED.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == expected
    assert any(name.endswith("licenses/LICENSE") for name in about)
    assert {"melodi/py.typed", "collectors/py.typed", "melodi/migrations/env.py"} <= names
    assert {"melodi/prompts/melodi-60.jsonl", "melodi/prompts/melodi-60.md"} <= names


def test_the_sdist_holds_what_building_and_testing_need(built: Built) -> None:
    """Sources, tests, pages and the Makefile; nothing that was made from them."""
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "Makefile", "README.md", "docs/glossary.md"} <= names
    assert {"tests/packaging/test_wheel.py", "migrations/env.py", "melodi/py.typed"} <= names
    for name in names:
        assert not {".venv", "dist", "__pycache__", ".git"} & set(Path(name).parts), name


def test_what_is_installed_is_not_the_checkout(installed: Installed) -> None:
    """Otherwise the tests below would say nothing."""
    found = installed.run(
        "python", "-c", "import melodi, collectors; print(melodi.__file__, collectors.__file__)"
    )
    files = found.split()
    assert len(files) == 2
    for file in files:
        assert Path(file).is_relative_to(installed.scripts.parent)


def test_an_installed_melodi_makes_its_tables_and_measures(installed: Installed) -> None:
    """`melodi db upgrade`, then `melodi demo`, from an empty folder far from any checkout."""
    installed.run("melodi", "db", "upgrade")
    assert (installed.folder.parent / "data" / "melodi" / "melodi.db").exists()
    shown = json.loads(installed.run("melodi", "demo", "--exit", "--requests", "2", "--json"))
    assert len(shown["requests"]) == 2
    assert all(one["energy_joules"] > 0 for one in shown["requests"])
    assert list(installed.folder.iterdir()) == []
