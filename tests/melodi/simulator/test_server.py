"""What only a simulator tells: truths, power, faults."""

import httpx2
import pytest

from melodi.simulator.launch import RunningSimulator

GENERATE = {"model": "simulated", "prompt": "a fault", "options": {"num_predict": 5}}
COMPLETE = {"model": "simulated", "prompt": "a fault", "max_tokens": 5, "stream": True}


def _order(server: RunningSimulator, kind: str, *, after_tokens: int = 2, count: int = 1) -> None:
    wish = {"kind": kind, "after_tokens": after_tokens, "count": count}
    httpx2.post(server.url + "/simulator/faults", json=wish).raise_for_status()


def test_the_truth_of_a_request_is_told_by_its_header(ollama_server: RunningSimulator) -> None:
    """Every joule field is there, prefill and decode make active, and times are in order."""
    response = httpx2.post(ollama_server.url + "/api/generate", json=GENERATE)
    number = response.headers["x-simulator-id"]
    truth = httpx2.get(f"{ollama_server.url}/simulator/requests/{number}").json()
    both = truth["true_prefill_joules"] + truth["true_decode_joules"]
    assert truth["true_active_joules"] == pytest.approx(both)
    assert truth["true_idle_share_joules"] > 0
    assert truth["true_load_joules"] == pytest.approx(23.0)
    assert truth["steps"] == truth["output_tokens"] == 5
    assert truth["service_start_ns"] < truth["first_token_ns"] < truth["end_ns"]


def test_a_request_that_never_was_has_no_truth(ollama_server: RunningSimulator) -> None:
    """404, with what to ask for instead."""
    for name in ("chatcmpl-never", "123456789"):
        response = httpx2.get(f"{ollama_server.url}/simulator/requests/{name}")
        assert response.status_code == 404
        assert "X-Simulator-Id" in response.json()["error"]


def test_power_is_what_the_sensor_shows(vllm_server: RunningSimulator) -> None:
    """The counter and power of one domain at the time of the read, on the monotonic clock."""
    power = httpx2.get(vllm_server.url + "/simulator/power").json()
    (domain,) = power["domains"]
    assert vllm_server.sensor.read(power["at_ns"]) == (domain["energy_uj"], domain["power_uw"])
    assert domain == {
        "name": "gpu:SIMULATED-0",
        "kind": "gpu",
        "scope": "gpu",
        "source": "simulated:counter",
        "refresh_ns": 100_000_000,
        "max_power_watts": 600.0,
        "energy_uj": domain["energy_uj"],
        "power_uw": domain["power_uw"],
    }


@pytest.mark.parametrize("stream", [True, False])
def test_a_server_that_dies_leaves_its_answer_unfinished(
    ollama_server: RunningSimulator, stream: bool
) -> None:
    """The connection closes within the body, and the engine stops working on the request."""
    _order(ollama_server, "die_mid_stream")
    cancelled = ollama_server.core.totals().finished.get("cancelled", 0)
    request = {**GENERATE, "stream": stream}
    with httpx2.stream("POST", ollama_server.url + "/api/generate", json=request) as response:
        assert response.status_code == 200
        with pytest.raises(httpx2.RemoteProtocolError):
            response.read()
    healthy = httpx2.post(ollama_server.url + "/api/generate", json=GENERATE)
    assert healthy.text.count("\n") == 6
    assert ollama_server.core.totals().finished["cancelled"] == cancelled + 1


def test_an_engine_error_is_a_line_after_those_that_got_through(
    ollama_server: RunningSimulator,
) -> None:
    """Status 200, two tokens, then an object with the error; not streamed it is a 500."""
    _order(ollama_server, "error_line", count=2)
    streamed = httpx2.post(ollama_server.url + "/api/generate", json=GENERATE)
    *tokens, last = streamed.text.splitlines()
    assert (streamed.status_code, len(tokens)) == (200, 2)
    assert last.startswith('{"error":"')
    whole = httpx2.post(ollama_server.url + "/api/generate", json={**GENERATE, "stream": False})
    assert (whole.status_code, set(whole.json())) == (500, {"error"})


def test_an_engine_error_in_an_event_stream_is_followed_by_done(
    vllm_server: RunningSimulator,
) -> None:
    """vLLM sends the error as an event and ends the stream in the usual way."""
    _order(vllm_server, "error_line")
    response = httpx2.post(vllm_server.url + "/v1/completions", json=COMPLETE)
    *tokens, error, done, nothing = response.text.split("\n\n")
    assert len(tokens) == 2
    assert '"type":"InternalServerError"' in error
    assert (done, nothing) == ("data: [DONE]", "")


def test_a_refused_request_runs_nothing_and_faults_are_used_up(
    vllm_server: RunningSimulator,
) -> None:
    """http_500 answers at once, as often as ordered."""
    _order(vllm_server, "http_500", count=2)
    steps = vllm_server.core.totals().steps
    answers = [
        httpx2.post(vllm_server.url + "/v1/completions", json=COMPLETE).status_code
        for _ in range(2)
    ]
    assert answers == [500, 500]
    assert vllm_server.core.totals().steps == steps
    assert httpx2.post(vllm_server.url + "/v1/completions", json=COMPLETE).status_code == 200


def test_an_unknown_fault_is_refused(vllm_server: RunningSimulator) -> None:
    """The answer names the kinds there are."""
    response = httpx2.post(vllm_server.url + "/simulator/faults", json={"kind": "explode"})
    assert response.status_code == 400
    assert "die_mid_stream, error_line, http_500" in response.json()["error"]
