"""Simulated servers for the tests of their dialects."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from melodi.simulator.launch import RunningSimulator, default_settings, simulator_in_thread


@pytest.fixture(scope="module")
def ollama_server() -> Iterator[RunningSimulator]:
    """A simulated Ollama with one slot; its model loads in a tenth of a second."""
    settings = replace(default_settings("ollama"), load_seconds=0.1, models=("simulated", "other"))
    with simulator_in_thread("ollama", settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def vllm_server() -> Iterator[RunningSimulator]:
    """A simulated vLLM that tells the metrics of each request."""
    settings = replace(default_settings("vllm"), request_metrics=True)
    with simulator_in_thread("vllm", settings=settings) as running:
        yield running
