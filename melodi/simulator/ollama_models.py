"""What Ollama says about its models, and the options it takes for them."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from melodi.clock import NS_PER_SECOND
from melodi.simulator.service import Refused, full_name

VERSION = "0.33.0"
DEFAULT_KEEP_ALIVE_NS = 300 * NS_PER_SECOND
LEAST_CONTEXT_TOKENS = 4
FOREVER_NS = 100 * 365 * 86_400 * NS_PER_SECOND
"""What `expires_at` shows ahead of now for a model that stays."""

SIZE = 4_700_000_000
_DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "simulated",
    "families": ["simulated"],
    "parameter_size": "8.0B",
    "quantization_level": "Q4_K_M",
}
_CAPABILITIES = ["completion", "embedding"]
_INTEGERS = (
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "seed"),
    *("num_predict", "top_k", "repeat_last_n", "draft_num_predict"),
)
_FLOATS = (
    *("top_p", "min_p", "typical_p", "temperature"),
    *("repeat_penalty", "presence_penalty", "frequency_penalty"),
)
_OPTION_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    **dict.fromkeys(_INTEGERS, ((int, float), "integer")),
    **dict.fromkeys(_FLOATS, ((int, float), "float32")),
    "use_mmap": (bool, "boolean"),
    "stop": (list, "array"),
}
_UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000}
_UNITS_NS |= {"s": NS_PER_SECOND, "m": 60 * NS_PER_SECOND, "h": 3_600 * NS_PER_SECOND}
_DURATION = re.compile(r"([-+]?)((?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+)")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


def known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that Ollama knows and that are set; one of the wrong type is refused with 500."""
    known = {
        name: value
        for name, value in options.items()
        if value is not None and name in _OPTION_TYPES
    }
    for name, value in known.items():
        wanted, wording = _OPTION_TYPES[name]
        is_flag = isinstance(value, bool) and wanted is not bool
        if is_flag or not isinstance(value, wanted):
            raise Refused(500, f'option "{name}" must be of type {wording}')
    return known


def keep_alive_ns(value: float | str | None) -> int | None:
    """How long a model stays: a number is seconds, a text a Go duration; None: for good.

    Left out (None) it is five minutes; below 0 it is for good.
    """
    if value is None:
        return DEFAULT_KEEP_ALIVE_NS
    ns = _duration_ns(value) if isinstance(value, str) else round(value * NS_PER_SECOND)
    return None if ns < 0 else ns


def _duration_ns(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None and text != "0":
        raise Refused(400, f'time: invalid duration "{text}"; write it as 10m or 1h30m')
    if match is None:
        return 0
    parts = _DURATION_PART.findall(match[2])
    ns = sum(round(float(number) * _UNITS_NS[unit]) for number, unit in parts)
    return -ns if match[1] == "-" else ns


def timestamp(wall_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(wall_ns, NS_PER_SECOND)
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def digest(model: str) -> str:
    """What Ollama knows a model's file by."""
    return sha256(full_name(model).encode()).hexdigest()


def listed(model: str) -> dict[str, Any]:
    """A model as `/api/tags` lists it."""
    return {
        **_identity(model),
        "modified_at": "2026-01-01T00:00:00Z",
        "details": _DETAILS,
        "capabilities": _CAPABILITIES,
    }


def running(model: str, *, context_tokens: int, expires_at: str) -> dict[str, Any]:
    """A model as `/api/ps` lists it; all of it is on the GPU."""
    return {
        **_identity(model),
        "details": _DETAILS,
        "expires_at": expires_at,
        "size_vram": SIZE,
        "context_length": context_tokens,
    }


def shown(context_tokens: int) -> dict[str, Any]:
    """A model as `/api/show` tells of it."""
    return {
        "modelfile": "FROM simulated",
        "template": "{{ .Prompt }}",
        "details": _DETAILS,
        "model_info": {
            "general.architecture": "simulated",
            "general.parameter_count": 8_000_000_000,
            "simulated.context_length": context_tokens,
        },
        "capabilities": _CAPABILITIES,
        "modified_at": "2026-01-01T00:00:00Z",
    }


def _identity(model: str) -> dict[str, Any]:
    name = full_name(model)
    return {"name": name, "model": name, "size": SIZE, "digest": digest(name)}
