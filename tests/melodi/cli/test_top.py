"""`melodi top` shows what a running daemon measures, and says where there is none."""

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest
from command import Shell, is_clear, urls_said
from waiting import PATIENCE_SECONDS


@pytest.fixture
def daemon(configured: Shell) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """`melodi serve` and its address."""
    with (configured.folder / "melodi.toml").open("a") as file:
        file.write('\n[api]\nlisten = "127.0.0.1:0"\n')
    with configured.start("serve") as process:
        try:
            (url,) = urls_said(process, "api")
            yield process, url
        finally:
            process.kill()


def test_once_shows_power_and_the_last_records(
    configured: Shell, daemon: "tuple[subprocess.Popen[str], str]"
) -> None:
    """As JSON for programs, as tables for people."""
    _, url = daemon
    body = {"backend": "sim", "model": "simulated", "prompt": "hello", "options": {"max_tokens": 5}}
    asked = urllib.request.Request(
        f"{url}/v1/requests",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=PATIENCE_SECONDS) as answer:
        record = json.load(answer)
    ended = configured.melodi("top", "--once", "--json", "--url", url)
    assert ended.code == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["domains"]["gpu:SIMULATED-0"]["mean_watts"] > 0
    assert found["joules"] > 0
    assert found["in_flight"] == 0
    assert [one["id"] for one in found["requests"]] == [record["id"]]
    shown = configured.melodi("top", "--once", "--url", url).stdout
    assert "gpu:SIMULATED-0" in shown
    assert "0 requests in flight" in shown
    assert "simulated" in shown


def test_a_daemon_stops_at_once_though_top_is_watching(
    configured: Shell, daemon: "tuple[subprocess.Popen[str], str]"
) -> None:
    """SIGTERM ends the stream; top says what happened and ends with 1."""
    process, url = daemon
    with (
        urllib.request.urlopen(f"{url}/v1/power/live", timeout=PATIENCE_SECONDS) as reader,
        configured.start("top", "--url", url) as top,
    ):
        try:
            assert reader.readline().startswith(b"data:")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0
            _, talk = top.communicate(timeout=PATIENCE_SECONDS)
        finally:
            top.kill()
    assert top.returncode == 1
    assert is_clear(talk)


def test_no_daemon_is_said_with_what_to_do(shell: Shell) -> None:
    """And so are words that are no address."""
    for url in ("http://127.0.0.1:9", "nonsense"):
        ended = shell.melodi("top", "--once", "--url", url)
        assert ended.code == 1
        assert f"no daemon answers at {url}" in ended.stderr
        assert "melodi serve" in ended.stderr
        assert is_clear(ended.stderr)
    ended = shell.melodi("top", "--json")
    assert ended.code == 2
    assert "add --once" in ended.stderr
