"""The run for a real card, tried out with a tiny model on the CPU and scripted power."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from real_engine import ENGINES, ROOT

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]

COST = "gateway and sampler cost at most 1 % of tokens per second"
"""Not a claim that a server on the same two cores can hold."""


def test_every_claim_but_the_cost_holds_before_a_real_server(tmp_path: Path) -> None:
    """Records, books, windows and minutes agree with the second reader; nothing is left out."""
    if not ENGINES.exists():
        pytest.fail("the server is not installed: run `make test-engines`")
    command = [sys.executable, "-m", "benchmarks.gpu.end_to_end", "--cpu", "--short"]
    command += ["--engine-python", str(ENGINES / "python"), "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=False, timeout=380)
    found = json.loads((tmp_path / "end_to_end.json").read_text())
    assert found["not_done"] == {}
    assert {one["claim"] for one in found["checks"] if not one["ok"]} <= {COST}
    assert found["models"]["tiny"]["continuous_batching"]
    assert found["cost"]["median"] > 0
    page = (tmp_path / "end_to_end.md").read_text()
    assert page.count("| tiny |") == 2
