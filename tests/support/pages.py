"""Pages of documentation: their blocks and links, and a reader who does what they say."""

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from command import Shell, urls_said
from waiting import PATIENCE_SECONDS, wait_for
from warm import MELODI

ROOT = Path(__file__).resolve().parents[2]
API = "127.0.0.1:8340"
MODELS = ("llama3.2", "Qwen/Qwen3-0.6B")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = "melodi demo"
"""A test of its own follows what the README says of it."""
READS = re.compile(r"melodi requests|/v1/requests")
UNKNOWN = re.compile(r'"energy_joules": ?null|^None\b', re.MULTILINE)
"""What a client is told where the energy was not known in time."""


@dataclass(frozen=True)
class DocPage:
    """One Markdown file."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Kind and text of each, in order."""
        return BLOCK.findall(self.text)

    @property
    def settings(self) -> str:
        """All that it puts into melodi.toml."""
        return "\n".join(text for kind, text in self.blocks if kind == "toml")

    @property
    def commands(self) -> list[str]:
        """The lines that are to be typed."""
        return [line for kind, text in self.blocks if kind == "sh" for line in text.splitlines()]

    @property
    def links(self) -> list[str]:
        """Targets in this repository."""
        return re.findall(r"\]\((?!https?:)([^)#]+)\)", self.text)


def free_address() -> str:
    """An address on this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def melodi_words(line: str) -> list[str] | None:
    """What follows `melodi` on a line, variables before it left aside; None for other commands."""
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words[1:] if words and words[0] == "melodi" else None


@dataclass(frozen=True)
class Reader:
    """Somebody with a page, a folder, and a simulator in place of a server."""

    page: DocPage
    shell: Shell
    addresses: dict[str, str]
    environment: dict[str, str]

    def follow(self) -> dict[str, str]:
        """Do all that the page says of MELODI; what each line or program printed."""
        (self.shell.folder / "melodi.toml").write_text(self._moved(self.page.settings))
        printed: dict[str, str] = {}
        with ExitStack() as stack:
            for kind, text in self.page.blocks:
                if kind == "python":
                    printed[text] = self._repeated(
                        lambda text=text: self._run(sys.executable, "-c", self._moved(text)), text
                    )
                for line in text.splitlines() if kind == "sh" else ():
                    if line == "melodi serve":
                        stack.enter_context(self._serving())
                    elif self._is_ours(line):
                        printed[line] = self._type(line)
        return printed

    def _is_ours(self, line: str) -> bool:
        asks = line.startswith("curl ") or melodi_words(line) is not None
        return asks and not line.startswith(ELSEWHERE)

    def _type(self, line: str) -> str:
        """Run a line, by bash where it says more than words."""
        words = melodi_words(self._moved(line))

        def run() -> str:
            if words is None or not set(line).isdisjoint("|&;<>$`*"):
                return self._run("bash", "-c", self._moved(line))
            ended = self.shell.melodi(*words, **self.environment)
            assert ended.code == 0, f"{line}: {ended.stdout}{ended.stderr}"
            return ended.stdout

        return self._repeated(run, line)

    def _repeated(self, run: Callable[[], str], asked: str) -> str:
        """What was said once there is a record, where one is asked for, and its energy is known."""
        said = ""

        def known() -> bool:
            nonlocal said
            said = run()
            has_record = not READS.search(asked) or "simulated" in said
            return has_record and not UNKNOWN.search(said)

        wait_for(known)
        return said

    def _run(self, *words: str) -> str:
        ended = subprocess.run(
            words,
            cwd=self.shell.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    @contextmanager
    def _serving(self) -> Iterator[None]:
        daemon = subprocess.Popen(
            [MELODI, "serve"],
            cwd=self.shell.folder,
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            urls_said(daemon, "api")
            yield
        finally:
            daemon.terminate()
            daemon.communicate(timeout=PATIENCE_SECONDS)

    def _moved(self, text: str) -> str:
        """The same on free ports, with the model that the simulator has."""
        for fixed, free in self.addresses.items():
            text = text.replace(fixed, free)
        for model in MODELS:
            text = text.replace(model, "simulated")
        return text


def reader_of(page: DocPage, folder: Path, *, simulator_url: str, **environment: str) -> Reader:
    """A reader whose server at the page's `url` is the simulator."""
    fixed = set(re.findall(r"127\.0\.0\.1:\d+", page.text)) | {API}
    addresses = {one: free_address() for one in fixed}
    if server := re.search(r'^url = "http://(127\.0\.0\.1:\d+)"', page.settings, re.MULTILINE):
        addresses[server[1]] = simulator_url.removeprefix("http://")
    shell = Shell(folder)
    own = {
        "PATH": f"{MELODI.parent}:{shell.environment['PATH']}",
        "MELODI_API__LISTEN": addresses[API],
        "MELODI_COLLECTORS__SIMULATED": simulator_url,
    }
    return Reader(page, shell, addresses, shell.environment | own | environment)
