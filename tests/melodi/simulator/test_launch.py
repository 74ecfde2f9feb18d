"""Starting and stopping simulated servers."""

import socket
import subprocess
import sys
import threading
from signal import SIGINT

import httpx2
import pytest
from waiting import PATIENCE_SECONDS

from melodi.errors import ConfigError
from melodi.simulator.launch import default_settings, simulator_in_thread
from melodi.simulator.settings import SimulatorSettings


def test_a_server_answers_at_once_and_is_gone_afterwards() -> None:
    """Its url works from the first moment; no thread and no open port is left behind."""
    before = threading.active_count()
    with simulator_in_thread("vllm") as running:
        assert httpx2.get(running.url + "/health").status_code == 200
    assert threading.active_count() == before
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(running.url + "/health")


def test_a_stream_under_way_does_not_hold_up_the_end() -> None:
    """Leaving the context cuts what is still being said."""
    body = {"model": "simulated", "prompt": "x", "max_tokens": 8_000, "ignore_eos": True}
    with httpx2.Client() as client:
        with simulator_in_thread("vllm") as running:
            url = running.url + "/v1/completions"
            request = client.build_request("POST", url, json={**body, "stream": True})
            response = client.send(request, stream=True)
            lines = response.iter_lines()
            next(lines)
        with pytest.raises(httpx2.RemoteProtocolError):
            list(lines)


def test_energy_flows_with_nobody_asking() -> None:
    """The core shares the machine's clock: its idle power counts from the start."""
    with simulator_in_thread("ollama") as running:
        start = httpx2.get(running.url + "/simulator/power").json()["at_ns"]
        energy = running.core.energy_uj(start + 1_000_000_000) - running.core.energy_uj(start)
    assert energy == pytest.approx(110_000_000, abs=1)


def test_a_taken_port_is_an_error_at_once() -> None:
    """The caller learns it, not a thread."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="in use"), simulator_in_thread("vllm", port=port):
            pass


def test_defaults_follow_the_real_servers() -> None:
    """Ollama starts with one slot, vLLM with many and its model in memory."""
    assert default_settings("ollama").max_running == 1
    assert default_settings("vllm").max_running > 1
    with simulator_in_thread("vllm") as running:
        assert running.core.loaded(0) is not None
    with simulator_in_thread("ollama") as running:
        assert running.core.loaded(0) is None


def test_run_simulator_serves_until_interrupted() -> None:
    """Alone in a process it answers on its port and ends by SIGINT."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        # Who starts tests in the background may have them ignore it.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from melodi.simulator.launch import run_simulator; "
        f"run_simulator('vllm', port={port}, on_bound=print)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        with httpx2.Client(transport=httpx2.HTTPTransport(retries=20)) as client:
            assert client.get(f"http://127.0.0.1:{port}/health").status_code == 200
        process.send_signal(SIGINT)
        assert process.wait(PATIENCE_SECONDS) == -SIGINT
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ()},
        {"max_running": 0},
        {"max_running": 10, "max_step_tokens": 5},
        {"refresh_ns": 0},
        {"idle_watts": -1.0},
        {"context_tokens": 1},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    """The error says what is to be changed."""
    with pytest.raises(ConfigError, match=r"must|name one"):
        SimulatorSettings(**wrong)  # type: ignore[arg-type]
