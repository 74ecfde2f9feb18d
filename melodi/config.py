"""Settings: environment over melodi.toml over defaults; read by the CLI and the daemon only."""

import os
import socket
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from melodi.durations import UNITS_NS, format_duration, parse_duration
from melodi.errors import ConfigError
from melodi.inference.request import check_api_key, check_process, check_url
from melodi.misconfigured import explain


def parse_address(text: object) -> str:
    """Check a `host:port`; raises ValueError with an example."""
    host, colon, port = str(text).rpartition(":")
    if not (colon and host and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{text!r} is no address; write host:port, such as 127.0.0.1:8340")
    return str(text)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a `host:port`."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _at_least_a_ms(ns: int) -> int:
    if ns < UNITS_NS["ms"]:
        raise ValueError("no meter is read more often than every 1ms; write 1ms or longer")
    return ns


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    Field(gt=0),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "format": "duration"}),
]
Period = Annotated[Duration, AfterValidator(_at_least_a_ms)]
Address = Annotated[
    str,
    BeforeValidator(parse_address),
    WithJsonSchema({"type": "string", "format": "host:port"}),
]


class Section(BaseModel):
    """A table of melodi.toml; a word it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Api(Section):
    """Where questions are answered."""

    listen: Address = "127.0.0.1:8340"
    """Where the API listens; port 0 takes any that is free."""
    expose: bool = False
    """Whether `listen` may be reached from other machines; the API asks nobody for a key."""


def _default_url() -> str:
    return f"sqlite:///{data_folder() / 'melodi.db'}"


class Database(Section):
    """Where records are kept."""

    url: str = Field(default_factory=_default_url)
    """As SQLAlchemy writes it; the default is the SQLite file `$XDG_DATA_HOME/melodi/melodi.db`."""


class Gateway(Section):
    """How the traffic of all backends passes."""

    processes: int = Field(default=2, ge=1, le=64)
    """How many processes pass it on, each with clients of its own; one passes some 10,000 pieces
    of streams a second."""


class Sampling(Section):
    """How often meters are read; they count on between two reads, so no joule is missed."""

    nvml_period: Period = parse_duration("50ms")
    """Between two reads of the GPUs."""
    rapl_period: Period = parse_duration("100ms")
    """Between two reads of any other meter."""
    process: bool = False
    """Whether meters are read in a process of its own; worth it below 10ms between two reads."""


class Collectors(Section):
    """Which meters are read."""

    use: Literal["auto"] | list[str] = "auto"
    """`auto` takes every meter that is here, and an estimate where there is none; or a list of
    `nvml`, `rapl`, `hwmon`, `pyrapl`, `simulated`, `estimate`, and of meters you have added."""
    sysfs_root: Path = Path("/sys")
    """Where sysfs is mounted: `class/powercap` and `class/hwmon` are looked for below it."""
    simulated: str | None = None
    """URL of a simulator whose power is to be read (`melodi simulate`)."""


class Attribution(Section):
    """How joules are divided among requests."""

    policy: Literal["auto", "time", "tokens", "steps"] = "auto"
    """By which policy requests at the same time share joules; `auto`: the best the data allow."""
    idle_quiet: Duration = parse_duration("10s")
    """A domain counts as idle once no request has run for this long."""


class Privacy(Section):
    """What is kept of the words of prompts."""

    prompts: Literal["hash", "text", "none"] = "hash"
    """What is kept of a prompt that passes through: a keyed hash, its text, or nothing."""


class Retention(Section):
    """For how long things are kept."""

    replay: Duration = parse_duration("3d")
    """Bins, and when tokens arrived: how far back `melodi recompute` can divide joules anew."""


class Carbon(Section):
    """What a kilowatt hour emits and costs; without them no carbon and no cost is told."""

    grams_per_kwh: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Grams of CO2 equivalent per kWh where this host stands."""
    price_per_kwh: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of a kWh, in a currency of your own."""


class BackendSettings(Section):
    """One table for each inference server; no other server is ever contacted."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    """What it is called in records and commands."""
    kind: Literal["ollama", "vllm", "openai"]
    """Whose API it speaks; `openai` is any other server with an OpenAI API."""
    url: Annotated[str, AfterValidator(check_url)]
    """Where it answers, without `/v1` or `/api`."""
    listen: Address | None = None
    """Where its gateway listens; without it there is none."""
    expose: bool = False
    """Whether `listen` may be reached from other machines; the gateway asks nobody for a key."""
    devices: Literal["auto"] | list[str] = "auto"
    """The power domains that it is charged for (`melodi doctor` names them); `auto`: the GPUs that
    its processes are on, and all CPUs and memory; `[]` for a server on another machine."""
    process: Annotated[str | int, AfterValidator(check_process)] = "auto"
    """Which processes do its work: `auto`: the one that listens at `url` and its children; or a
    pid and its children; or a cgroup, such as `cgroup:/system.slice/ollama.service`."""
    usage: Literal["ask", "as-is"] = "ask"
    """Whether the gateway may ask a vLLM stream for its token counts, and take them out again."""
    api_key: Annotated[str | None, AfterValidator(check_api_key)] = Field(default=None, repr=False)
    """Sent to the backend with prompts that MELODI itself sends; never stored or shown."""
    ca: Path | None = None
    """A PEM file with the certificates that vouch for an `https` backend, in place of those that
    this machine trusts."""


class Settings(BaseSettings):
    """Everything that can be set. `MELODI_SECTION__KEY` sets one from the environment."""

    model_config = SettingsConfigDict(
        env_prefix="MELODI_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    host: str = Field(default_factory=socket.gethostname)
    """The name under which this machine's records are stored."""
    api: Api = Api()
    database: Database = Field(default_factory=Database)
    gateway: Gateway = Gateway()
    sampling: Sampling = Sampling()
    collectors: Collectors = Collectors()
    attribution: Attribution = Attribution()
    privacy: Privacy = Privacy()
    retention: Retention = Retention()
    carbon: Carbon = Carbon()
    backends: list[BackendSettings] = []

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  the names are the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def data_folder() -> Path:
    """Where MELODI keeps its own files: $XDG_DATA_HOME/melodi."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "melodi"


def load(path: Path | None) -> Settings:
    """The settings in force; `path` defaults to ./melodi.toml where there is one.

    Raises ConfigError naming the file or variable, the setting and what is wrong with it.
    """
    try:
        settings = Settings(**read_file(path))
    except ValidationError as error:
        source = path or "melodi.toml or a MELODI_ variable"
        raise ConfigError(explain(error, tables=Settings, source=source)) from None
    except SettingsError as error:
        raise ConfigError(f"{error}: write it in JSON there, or in the settings file") from None
    _check(settings)
    return settings


def read_file(path: Path | None) -> dict[str, Any]:
    """The tables of the settings file; {} where none is named and ./melodi.toml is not there."""
    chosen = path or Path("melodi.toml")
    if path is None and not chosen.exists():
        return {}
    try:
        return tomllib.loads(chosen.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{chosen} does not exist; give --config the path of a file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{chosen} cannot be read ({reason}); make it readable") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{chosen} is no TOML: {error}; mend that line") from None


def origins(path: Path | None) -> dict[str, str]:
    """Where each setting that is not a default comes from, by its dotted name."""
    found = dict.fromkeys(_leaves(read_file(path)), str(path or "melodi.toml"))
    env = EnvSettingsSource(Settings)
    for name in _leaves(env()):
        found[name] = "MELODI_" + name.upper().replace(".", "__")
    return found


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in tree.items():
        inside = _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else []
        names += inside or [prefix + key]
    return names


def _check(settings: Settings) -> None:
    names = [backend.name for backend in settings.backends]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two backends are called {twice.pop()!r}; give each a name of its own")
    listening = [("the API", "[api]", settings.api.listen, settings.api.expose)]
    listening += [
        (f"backend {one.name!r}", "its table", one.listen, one.expose)
        for one in settings.backends
        if one.listen is not None
    ]
    for who, table, address, exposed in listening:
        if not exposed and not is_loopback(address):
            raise ConfigError(
                f"{who} would listen on {address}, open to others; set expose = true in {table} "
                "if that is meant, or listen on 127.0.0.1"
            )
