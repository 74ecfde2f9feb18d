"""Settings come from the environment, then the file, then defaults; mistakes are explained."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.config import load, origins
from melodi.durations import format_duration, parse_duration
from melodi.errors import ConfigError


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "melodi.toml"


@given(st.integers(1, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_is_read_back_as_it_was_written(count: int, unit: str) -> None:
    """Whatever form `config show` chooses, it means the same."""
    ns = parse_duration(f"{count}{unit}")
    assert parse_duration(format_duration(ns)) == ns


@pytest.mark.parametrize(
    "text", ["5", 5, 50_000_000, 0.5, "", "ms", "-3s", "3 weeks", "1e3s", None, True]
)
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    """A bare number could mean anything."""
    with pytest.raises(ValueError, match="such as 50ms"):
        parse_duration(text)


def test_without_a_file_everything_has_a_default(toml: Path) -> None:
    """Nothing has to be configured to begin."""
    assert not toml.exists()
    settings = load(None)
    assert settings.api.listen == "127.0.0.1:8340"
    assert settings.sampling.nvml_period == 50_000_000
    assert settings.database.url.endswith("/melodi/melodi.db")


def test_the_environment_wins_over_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And `origins` says which is which."""
    toml.write_text('[sampling]\nnvml_period = "20ms"\nrapl_period = "200ms"\n')
    monkeypatch.setenv("MELODI_SAMPLING__NVML_PERIOD", "10ms")
    settings = load(None)
    assert settings.sampling.nvml_period == 10_000_000
    assert settings.sampling.rapl_period == 200_000_000
    assert origins(None) == {
        "sampling.nvml_period": "MELODI_SAMPLING__NVML_PERIOD",
        "sampling.rapl_period": "melodi.toml",
    }


@pytest.mark.parametrize("text", ['"auto"', "4711", '"cgroup:/system.slice/ollama.service"'])
def test_the_processes_of_a_backend_are_found_or_named(toml: Path, text: str) -> None:
    """By a pid or a cgroup."""
    toml.write_text(
        f"[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://x'\nprocess = {text}\n"
    )
    assert load(None).backends[0].process == tomllib.loads(f"x = {text}")["x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sampling]\nnvml_perod = '1s'", "no such setting (did you mean nvml_period?)"),
        ("samplin = 1", "samplin: there is no such setting (did you mean sampling?)"),
        (
            "[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://127.0.0.1'\nlisen = '1'",
            "backends.0.lisen: there is no such setting (did you mean listen?)",
        ),
        ("[sampling.nvml_period]\nx = 1", "sampling.nvml_period: {'x': 1} is no duration"),
        ("[sampling]\nnvml_period = '0s'", "sampling.nvml_period"),
        ("[sampling]\nnvml_period = 50", "50 is no duration; write one such as 50ms"),
        ("[sampling]\nrapl_period = '0.9ms'", "write 1ms or longer"),
        ("[attribution]\nidle_quiet = 10", "attribution.idle_quiet: 10 is no duration"),
        ("[api]\nlisten = '0.0.0.0:8340'", "set expose = true in [api]"),
        ("[api]\nlisten = '127.example.org:8340'", "set expose = true in [api]"),
        ("[api]\nlisten = 'everywhere'", "write host:port"),
        ("[api\n", "is no TOML"),
        ("[[backends]]\nname = 'a'\nkind = 'tgi'\nurl = 'http://x'", "backends.0.kind"),
        (
            "[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://x'\nlisten = '0.0.0.0:80'",
            "set expose = true",
        ),
        (
            "[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://me:1234567@x'",
            "put it into api_key",
        ),
        (
            "[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://x:70000'",
            "its host or its port (1 to 65535)",
        ),
        (
            "[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://x'\napi_key = '\u00e4'",
            "not printable ASCII",
        ),
        (
            "[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://x'\nprocess = 'vllm'",
            'no process; write "auto", a pid, or "cgroup:/path"',
        ),
        (
            "[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://x'\nprocess = 0",
            "0 is no process",
        ),
        (
            "[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://x'\n" * 2,
            "give each a name of its own",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_to_do(
    toml: Path, text: str, message: str
) -> None:
    """One line a mistake, no traceback, nothing guessed."""
    toml.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(toml)
    assert message in str(caught.value)
    assert "1234567" not in str(caught.value)


def test_a_file_that_was_asked_for_must_be_there(toml: Path) -> None:
    """A missing or unreadable file is no reason to run with defaults."""
    with pytest.raises(ConfigError, match="does not exist"):
        load(toml)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(toml.parent)


def test_what_only_this_machine_reaches_needs_no_exposing(toml: Path) -> None:
    """Loopback by any of its names; elsewhere `expose = true` says that it is meant."""
    for listen in ("localhost:1", "127.0.0.9:1", "[::1]:1"):
        toml.write_text(f"[api]\nlisten = '{listen}'")
        assert load(toml).api.listen == listen
    toml.write_text("[api]\nlisten = '0.0.0.0:1'\nexpose = true")
    assert load(toml).api.listen == "0.0.0.0:1"


def test_a_variable_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch, toml: Path) -> None:
    """Lists are JSON in the environment."""
    assert not toml.exists()
    monkeypatch.setenv("MELODI_BACKENDS", "ollama")
    with pytest.raises(ConfigError, match=r'"backends".*write it in JSON'):
        load(None)
