"""Settings come from the environment, then the file, then defaults; mistakes are explained."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.config import format_duration, load, origins, parse_duration
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


@pytest.mark.parametrize("text", ["5", "", "ms", "-3s", "3 weeks", "1e3s", None, True])
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sampling]\nnvml_perod = '1s'", "sampling.nvml_perod: there is no such setting"),
        ("[sampling]\nnvml_period = '0s'", "sampling.nvml_period"),
        ("[api]\nlisten = 'everywhere'", "write host:port"),
        ("[api\n", "is no TOML"),
        ("[[backends]]\nname = 'a'\nkind = 'tgi'\nurl = 'http://x'", "backends.0.kind"),
        (
            "[[backends]]\nname = 'a'\nkind = 'vllm'\nurl = 'http://x'\nlisten = '0.0.0.0:80'",
            "set expose = true",
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
    assert "melodi.toml" in str(caught.value) or "backend" in str(caught.value)


def test_a_file_that_was_asked_for_must_be_there(toml: Path) -> None:
    """A missing or unreadable file is no reason to run with defaults."""
    with pytest.raises(ConfigError, match="does not exist"):
        load(toml)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(toml.parent)
