"""What the API takes and gives, as pydantic models, so that its documentation is true."""

from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from melodi.energy.record import DomainEnergy, EnergyRecord
from melodi.inference.request import Backend, PromptRequest
from melodi.store.books import LedgerLine


def _mirror(shape: type) -> type[BaseModel]:
    """A model with the fields of a dataclass, all of them always there."""
    hints = get_type_hints(shape)
    columns: dict[str, Any] = {f.name: (_mirrored(hints[f.name]), ...) for f in fields(shape)}
    return create_model(
        shape.__name__, __config__=ConfigDict(extra="forbid"), __doc__=shape.__doc__, **columns
    )


def _mirrored(hint: Any) -> Any:
    # The one nesting there is: an object of dataclasses by name.
    inner = next((arg for arg in get_args(hint) if is_dataclass(arg)), None)
    return hint if inner is None else dict[str, _mirror(DomainEnergy)]  # type: ignore[misc]


Record = _mirror(EnergyRecord)
Ledger = _mirror(LedgerLine)
