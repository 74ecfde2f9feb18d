"""The daemon's life from outside: one at a time; streams end first; a reload loses nobody."""

import json
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Shell, is_clear, urls_said
from waiting import PATIENCE_SECONDS, wait_for

from melodi.serving import GRACE_SECONDS
from melodi.simulator.launch import RunningSimulator, simulator_in_thread

MODEL = "simulated"


@pytest.fixture
def simulator() -> Iterator[RunningSimulator]:
    with simulator_in_thread("vllm") as one:
        yield one


@pytest.fixture
def shell(tmp_path: Path, simulator: RunningSimulator) -> Shell:
    (tmp_path / "melodi.toml").write_text(
        '[api]\nlisten = "127.0.0.1:0"\n'
        f'[collectors]\nsimulated = "{simulator.url}"\n'
        f'[[backends]]\nname = "sim"\nkind = "vllm"\nurl = "{simulator.url}"\n'
        'listen = "127.0.0.1:0"\n'
    )
    return Shell(tmp_path)


def urls(process: "subprocess.Popen[str]") -> list[str]:
    """What the daemon says when it answers: its API and its gateway."""
    return urls_said(process, "api", "gateway")


@pytest.fixture
def daemon(shell: Shell) -> "Iterator[subprocess.Popen[str]]":
    process = shell.start("serve")
    yield process
    process.kill()
    process.communicate()


def stream(gateway: str, seen: list[bytes], *, started: threading.Event, tokens: int = 120) -> None:
    """A stream of about a second for each 120 tokens; its lines as they come."""
    body = {"model": MODEL, "prompt": "go on", "stream": True, "max_tokens": tokens}
    body |= {"min_tokens": tokens, "ignore_eos": True}
    request = urllib.request.Request(
        f"{gateway}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        for line in answer:
            seen.append(line)
            started.set()


def test_sigterm_lets_a_stream_end_and_its_record_become_final(
    shell: Shell, daemon: "subprocess.Popen[str]"
) -> None:
    """The client gets its last byte, the record its energy, and the exit code is 0."""
    _, gateway = urls(daemon)
    seen: list[bytes] = []
    started = threading.Event()
    client = threading.Thread(target=stream, args=(gateway, seen), kwargs={"started": started})
    client.start()
    assert started.wait(PATIENCE_SECONDS)
    daemon.send_signal(signal.SIGTERM)
    client.join(PATIENCE_SECONDS)
    _, talk = daemon.communicate(timeout=PATIENCE_SECONDS)
    assert daemon.returncode == 0, talk
    assert seen[-2:] == [b"data: [DONE]\n", b"\n"]
    (record,) = json.loads(shell.melodi("requests", "--json").stdout)["items"]
    assert record["status"] == "ok"
    assert record["output_tokens"] == 120
    assert record["provisional"] is False
    assert record["energy_joules"] > 0
    assert is_clear(talk)


def test_sigterm_refuses_the_new_and_cuts_what_takes_too_long(
    shell: Shell, daemon: "subprocess.Popen[str]"
) -> None:
    """A stream gets the grace time and no more; nothing is said with a traceback."""
    api, gateway = urls(daemon)
    started = threading.Event()
    client = threading.Thread(
        target=stream, args=(gateway, []), kwargs={"started": started, "tokens": 3000}
    )
    client.start()
    assert started.wait(PATIENCE_SECONDS)
    began = time.monotonic()
    daemon.send_signal(signal.SIGTERM)
    for url in (api, gateway):
        wait_for(lambda url=url: not accepts(url))
    assert daemon.poll() is None
    _, talk = daemon.communicate(timeout=PATIENCE_SECONDS)
    client.join(PATIENCE_SECONDS)
    assert daemon.returncode == 0, talk
    assert time.monotonic() - began >= GRACE_SECONDS
    assert is_clear(talk)
    (record,) = json.loads(shell.melodi("requests", "--json").stdout)["items"]
    assert (record["status"], record["provisional"]) == ("cancelled", False)
    assert record["energy_joules"] > 0


def accepts(url: str) -> bool:
    """Whether anybody listens there."""
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True


def test_a_second_daemon_is_refused_with_the_first_ones_pid(
    shell: Shell, daemon: "subprocess.Popen[str]"
) -> None:
    """Its message says who keeps the books, and what to do; on the same port as on another."""
    api, _ = urls(daemon)
    for address in ("127.0.0.1:0", api.removeprefix("http://")):
        second = shell.melodi("serve", MELODI_API__LISTEN=address)
        assert second.code == 2
        assert f"pid {daemon.pid}" in second.stderr
        assert is_clear(second.stderr)


def test_sighup_reads_the_settings_again_and_refuses_broken_ones(
    shell: Shell, daemon: "subprocess.Popen[str]", simulator: RunningSimulator
) -> None:
    """A new backend is there after the reload; a broken file changes nothing."""
    api, gateway = urls(daemon)
    path = shell.folder / "melodi.toml"
    good = path.read_text()
    path.write_text("[api\n")
    daemon.send_signal(signal.SIGHUP)
    assert "not_reloaded" in next(line for line in daemon.stderr if "reload" in line)
    path.write_text(
        good + f'\n[[backends]]\nname = "two"\nkind = "vllm"\nurl = "{simulator.url}"\n'
    )
    daemon.send_signal(signal.SIGHUP)
    again = next(line for line in daemon.stderr if line.startswith("api")).split()[1]
    assert again == api
    with urllib.request.urlopen(f"{api}/v1/backends", timeout=PATIENCE_SECONDS) as answer:
        names = [one["name"] for one in json.load(answer)["items"]]
    assert names == ["sim", "two"]
    seen: list[bytes] = []
    stream(gateway, seen, started=threading.Event())
    assert b"data: [DONE]\n" in seen


def test_a_run_beside_the_daemon_goes_through_it(
    shell: Shell, daemon: "subprocess.Popen[str]"
) -> None:
    """One keeper of the books: `melodi run` sends by the daemon's API, and says so."""
    urls(daemon)
    words = ("run", "--prompts", "melodi-60", "--limit", "3", "--max-tokens", "20")
    ran = shell.melodi(*words, "--backend", "sim", "--model", MODEL, "--json")
    assert ran.code == 0, ran.stderr
    assert f"pid {daemon.pid}" in ran.stderr
    items = json.loads(ran.stdout)["items"]
    assert len({one["id"] for one in items}) == 3
    for one in items:
        assert one["energy_joules"] > 0
        assert one["prompt"]
        assert one["tags"]["prompt_id"]
        assert one["provisional"] is False
    refused = shell.melodi(*words, "--backend", "nowhere", "--model", MODEL)
    assert refused.code == 1
    assert "no backend is called 'nowhere'" in refused.stderr
    assert is_clear(refused.stderr)
    unknown = shell.melodi(*words, "--backend", "sim", "--model", "nobody")
    assert unknown.code == 1
    assert "backend sim has no model 'nobody'" in unknown.stderr
    assert len(json.loads(shell.melodi("requests", "--json").stdout)["items"]) == 3
