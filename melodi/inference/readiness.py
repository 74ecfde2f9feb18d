"""Whether a backend can serve a model at all, asked once before many prompts are sent."""

from collections.abc import Sequence

from melodi.errors import BackendError
from melodi.inference.backends.ollama import model_name
from melodi.inference.request import BackendKind
from melodi.spelling import did_you_mean

DEFAULT_PLACE = ("registry.ollama.ai/", "library/")


def check_servable(
    model: str,
    *,
    backend: str,
    kind: BackendKind,
    error: str | None,
    models: Sequence[str],
) -> None:
    """Raise BackendError where a backend does not answer or offers no such model.

    `error` and `models` are what it said of itself. Ollama and vLLM list all that they serve;
    of another server nobody knows, so only its own answer tells.
    """
    if error is not None:
        raise BackendError(error)
    known = {_plain(one, kind): one for one in models}
    if kind is BackendKind.OPENAI or not known or _plain(model, kind) in known:
        return
    hint = did_you_mean(model, known.values()) or f"; it has {', '.join(sorted(known.values()))}"
    raise BackendError(f"backend {backend} has no model {model!r}{hint}")


def _plain(model: str, kind: BackendKind) -> str:
    """A model's name without what Ollama adds to it of its own."""
    if kind is not BackendKind.OLLAMA:
        return model
    name = (model_name(model) or "").lower()
    for place in DEFAULT_PLACE:
        name = name.removeprefix(place)
    return name
