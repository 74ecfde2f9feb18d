"""The turns of a prompt: from plain text, chat messages or a ShareGPT conversation."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypedDict

SPEAKERS = MappingProxyType(
    {
        "system": "system",
        "user": "user",
        "human": "user",
        "assistant": "assistant",
        "gpt": "assistant",
        "chatgpt": "assistant",
    }
)
"""Who speaks, as files name it, and the role a backend knows."""


class Message(TypedDict):
    """One turn, as Ollama and OpenAI-compatible servers take it."""

    role: str
    content: str


class BrokenRow(ValueError):
    """A row holds no usable prompt; the text says why and what to do."""


def turns_of(fields: Mapping[str, object]) -> tuple[tuple[Message, ...], str | None]:
    """What is sent, and the reply that a conversation holds to it.

    The first of `prompt`, `messages`, `conversations` that is not null is taken. A conversation
    is sent up to its last user turn; the assistant turn that follows is the reply.
    Raises BrokenRow.
    """
    prompt = fields.get("prompt")
    if prompt is not None:
        return (_message("user", prompt, "`prompt`"),), None
    for name, role_key, text_key in (
        ("messages", "role", "content"),
        ("conversations", "from", "value"),
    ):
        turns = fields.get(name)
        if turns is not None:
            return _cut(_conversation(turns, name, role_key, text_key))
    raise BrokenRow("has no prompt; give it `prompt`, `messages` or `conversations`")


def _conversation(turns: object, name: str, role_key: str, text_key: str) -> list[Message]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise BrokenRow(
            f"`{name}` is not a list of objects; write [{{{role_key!r}: ..., {text_key!r}: ...}}]"
        )
    return [
        _message(turn.get(role_key), turn.get(text_key), f"{text_key!r} of turn {at} of `{name}`")
        for at, turn in enumerate(turns, start=1)
    ]


def _message(speaker: object, content: object, where: str) -> Message:
    role = SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise BrokenRow(f"{speaker!r} is not a role; use one of {', '.join(SPEAKERS)}")
    if not isinstance(content, str):
        raise BrokenRow(f"{where} is {type(content).__name__}, not text; write it as a string")
    if role == "user" and not content.strip():
        raise BrokenRow(f"{where} is empty; write a prompt or take the line out")
    return {"role": role, "content": content}


def _cut(turns: list[Message]) -> tuple[tuple[Message, ...], str | None]:
    last = max((at for at, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if last is None:
        raise BrokenRow("no turn is the user's; a prompt needs one")
    after = turns[last + 1 :]
    reply = after[0]["content"] if after and after[0]["role"] == "assistant" else None
    return tuple(turns[: last + 1]), reply or None
