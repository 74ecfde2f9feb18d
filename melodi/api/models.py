"""What the API takes and gives, as pydantic models, so that its documentation is true."""

from collections.abc import Mapping
from dataclasses import fields
from types import GenericAlias, MappingProxyType
from typing import Any, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from melodi.analysis.compare import Compared, Party
from melodi.datasets.columns import COLUMNS, Column
from melodi.energy.record import DomainEnergy, EnergyRecord
from melodi.inference.request import Backend, PromptRequest
from melodi.store.books import LedgerLine
from melodi.store.figures import Group
from melodi.store.inventory import HostLine, ModelLine


def _mirror(
    shape: type, about: Mapping[str, Column] = MappingProxyType({}), **nested: Any
) -> type[BaseModel]:
    """A model of a dataclass in which every field is always there; `nested` replaces types."""
    hints = get_type_hints(shape) | nested
    told = {name: column.description for name, column in about.items()}
    columns: dict[str, Any] = {
        f.name: (hints[f.name], Field(description=told.get(f.name))) for f in fields(shape)
    }
    return create_model(shape.__name__, __doc__=shape.__doc__, **columns)


def _list_of(item: Any) -> type[BaseModel]:
    """The shape of every list route."""
    columns: dict[str, Any] = {
        "items": (GenericAlias(list, (item,)), ...),
        "next_cursor": (str | None, ...),
    }
    return create_model(f"ListOf{getattr(item, '__name__', 'Object')}", **columns)


_Domains = GenericAlias(dict, (str, _mirror(DomainEnergy, COLUMNS)))
Record = _mirror(EnergyRecord, COLUMNS, domains=_Domains)
RecordList = _list_of(Record)
LedgerList = _list_of(_mirror(LedgerLine))
HostList = _list_of(_mirror(HostLine))
ModelList = _list_of(_mirror(ModelLine))
ObjectList = _list_of(dict[str, Any])


class StatsAnswer(_list_of(_mirror(Group))):  # type: ignore[misc]
    """Groups; instead of `by` each has what it is grouped by under its own name."""

    percentile_error_ratio: float


CompareAnswer = _mirror(Compared, a=_mirror(Party), b=_mirror(Party))


class Diagnosis(BaseModel):
    """What can be measured here, and what keeps the rest from it."""

    collectors: list[dict[str, Any]]
    backends: list[dict[str, Any]]
    measurable: bool


class Prompt(BaseModel):
    """A prompt to be sent to a backend: a text or a conversation, one of the two."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    backend: str
    """The name of a configured backend."""
    model: str
    """The model, as the backend calls it."""
    prompt: str | None = None
    """The text of a single message from the user."""
    messages: list[dict[str, Any]] = Field(default_factory=list)
    """A conversation: objects with `role` and `content`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Parameters for the backend, such as `max_tokens` or `temperature`."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Labels of the record, by which it can be found again."""
    campaign: str | None = None
    """The campaign that the record belongs to."""
    task: str | None = None
    """The kind of work that the prompt asks for."""
    timeout_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """After so long the request is given up; its record stays."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.prompt is None) == (not self.messages):
            raise ValueError("give prompt or messages, one of the two")
        return self

    def to_request(self, backend: Backend) -> PromptRequest:
        """The same, addressed to `backend`."""
        return PromptRequest(
            backend=backend,
            messages=tuple(self.messages),
            **self.model_dump(exclude={"backend", "messages"}),
        )


class Problem(BaseModel):
    """What went wrong and what to do (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = Field(default_factory=list)
    """Which parts of the request were wrong."""
    faults: list[str] = Field(default_factory=list)
    """What keeps the daemon from being ready."""
