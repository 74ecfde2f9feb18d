"""LiteLLM's proxy, in a virtual environment of its own that this makes where it is missing."""

import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.gateway.processes import REPOSITORY
from benchmarks.gateway.wire import HOST, MODEL

FOLDER = REPOSITORY / "build" / "litellm"
SETTINGS = "one worker, no database, no keys, no callbacks, telemetry off, log level ERROR"
ENVIRONMENT = {
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
}
_CONFIG = """
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: {upstream}/v1
      api_key: sk-bench
"""


def install() -> str | None:
    """Install it; why it could not be, or None."""
    if (FOLDER / "bin" / "litellm").exists():
        return None
    print("installing LiteLLM into build/litellm ...", file=sys.stderr)
    venv.create(FOLDER, with_pip=True)
    pip = [FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", "litellm[proxy]"]
    ended = subprocess.run(pip, capture_output=True, text=True, check=False)
    return None if ended.returncode == 0 else ended.stderr.strip().rpartition("\n")[2]


def version() -> str:
    """As its package says."""
    ask = "import importlib.metadata as m; print(m.version('litellm'))"
    command = [FOLDER / "bin" / "python", "-c", ask]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def command(folder: Path, *, upstream_url: str, port: int) -> list[str | Path]:
    """What starts it with one model, behind `port`."""
    config = folder / "litellm.yaml"
    config.write_text(_CONFIG.format(model=MODEL, upstream=upstream_url))
    options = ["--num_workers", "1", "--telemetry", "False"]
    where = ["--host", HOST, "--port", str(port)]
    return [FOLDER / "bin" / "litellm", "--config", config, *where, *options]
