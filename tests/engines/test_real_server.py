"""A real server: one complete record per prompt, sent by `melodi run` or passed on."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_engine import Engine, free_port, wait_until_healthy

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

MELODI = Path(sys.executable).with_name("melodi")
MAX_TOKENS = 40


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"XDG_DATA_HOME": str(tmp_path / "data")}


@pytest.fixture
def config(tmp_path: Path, engine: Engine) -> Path:
    path = tmp_path / "melodi.toml"
    path.write_text(
        f'[api]\nlisten = "127.0.0.1:{free_port()}"\n'
        "[[backends]]\n"
        f'name = "real"\nkind = "openai"\nurl = "{engine.url}"\n'
        f'listen = "127.0.0.1:{free_port()}"\n'
    )
    return path


@pytest.fixture
def daemon(config: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """`melodi serve`; gives the URLs of its API and its gateway."""
    addresses = [line.split('"')[1] for line in config.read_text().splitlines() if "listen" in line]
    urls = dict(zip(("api", "gateway"), (f"http://{one}" for one in addresses), strict=True))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [MELODI, "serve", "--config", config],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        wait_until_healthy(f"{urls['api']}/healthz", process, tmp_path / "log")
        yield urls
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def check_complete(record: dict[str, Any]) -> None:
    """Tokens, times, energy from what this host can measure, and what that is worth."""
    assert record["status"] == "ok", record["error"]
    assert record["tokens_source"] == "usage"
    assert 1 <= record["output_tokens"] <= MAX_TOKENS
    assert 0 < record["time_to_first_token_seconds"] <= record["duration_seconds"]
    assert record["energy_joules"] > 0
    assert record["low_joules"] <= record["energy_joules"] <= record["high_joules"]
    assert record["footprint"]
    assert record["quality"] in ("measured", "interpolated", "sub_sensor", "estimated")
    assert not record["provisional"]


def prompt_tokens(engine: Engine, prompt: str) -> int:
    """What the server itself counts, asked directly."""
    body = {"model": engine.model, "messages": [{"role": "user", "content": prompt}]}
    request = urllib.request.Request(
        f"{engine.url}/v1/chat/completions",
        data=json.dumps(body | {"max_tokens": 1}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["usage"]["prompt_tokens"]


def test_run_leaves_one_complete_record_per_bundled_prompt(
    engine: Engine, config: Path, environment: dict[str, str]
) -> None:
    """All 60 prompts, four at a time; tokens are those that the server counts."""
    command = [MELODI, "run", "--prompts", "melodi-60", "--backend", "real"]
    command += ["--model", engine.model, "--concurrency", "4", "--max-tokens", str(MAX_TOKENS)]
    ran = subprocess.run(
        [*command, "--config", config, "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        timeout=500,
    )
    items = json.loads(ran.stdout)["items"]
    assert len({one["tags"]["prompt_id"] for one in items}) == len(items) == 60
    for record in items:
        check_complete(record)
        assert record["prompt"]
        assert record["response"] is not None
    for record in items[:5]:
        assert record["input_tokens"] == prompt_tokens(engine, record["prompt"])
    subprocess.run(
        [MELODI, "requests", "--config", config, "--limit", "10"], env=environment, check=True
    )


def test_the_gateway_records_what_the_openai_client_sees(
    engine: Engine, daemon: dict[str, str]
) -> None:
    """The client's own usage, streamed and not, stands in the records."""
    import openai

    client = openai.OpenAI(base_url=f"{daemon['gateway']}/v1", api_key="none", max_retries=0)
    usages = []
    for k in range(6):
        messages = [{"role": "user", "content": f"Say something about the number {k}."}]
        answer = client.chat.completions.create(
            model=engine.model, messages=messages, max_tokens=MAX_TOKENS, stream=k % 2 == 0
        )
        if k % 2 == 0:
            usages += [chunk.usage for chunk in answer if chunk.usage]
        else:
            usages.append(answer.usage)
    assert len(usages) == 6
    ids: list[str] = []
    deadline = time.monotonic() + 10
    while len(ids) < 6 and time.monotonic() < deadline:
        with urllib.request.urlopen(f"{daemon['api']}/v1/requests?limit=100") as listed:
            ids = [one["id"] for one in json.load(listed)["items"]]
    assert len(ids) == 6
    for request_id, usage in zip(sorted(ids), usages, strict=True):
        with urllib.request.urlopen(f"{daemon['api']}/v1/requests/{request_id}?wait=30") as one:
            record = json.load(one)
        assert record["input_tokens"] == usage.prompt_tokens
        assert record["output_tokens"] == usage.completion_tokens
        if record["streamed"]:
            check_complete(record)
