"""What requests to OpenAI's API say, as far as the simulated servers listen."""

from typing import Any, Literal

from pydantic import Field

from melodi.simulator.service import Body
from melodi.simulator.text import tokenize


class StreamOptions(Body):
    """What a stream shall tell of its usage."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class AnswerBody(Body):
    """What chats and completions have in common."""

    model: str = ""
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    response_format: dict[str, Any] = Field(default_factory=dict)
    n: Literal[1] = 1

    @property
    def json_text(self) -> bool:
        """Whether the text of the answer is to be JSON."""
        return self.response_format.get("type") in ("json_object", "json_schema")

    @property
    def tool(self) -> str | None:
        """The tool that the model calls: the first, where it has any."""
        return None


class ContentPart(Body):
    """A piece of a message."""

    type: str
    text: str = ""


class Message(Body):
    """One turn of a chat."""

    role: str
    content: str | list[ContentPart] | None = ""

    def text(self) -> str:
        """The words of the message; parts that are not text have none."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or ())


class Function(Body):
    """What a tool is called."""

    name: str


class Tool(Body):
    """Something that a model may call."""

    type: str
    function: Function


class ChatBody(AnswerBody):
    """`/v1/chat/completions`."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: list[Tool] = Field(default_factory=list)

    @property
    def tool(self) -> str | None:
        return self.tools[0].function.name if self.tools else None

    def tokens(self) -> tuple[int, ...]:
        turns = "".join(f"{turn.role}: {turn.text()}\n" for turn in self.messages)
        return tokenize(turns + "assistant:")


class CompletionBody(AnswerBody):
    """`/v1/completions`."""

    prompt: str | list[int]

    def tokens(self) -> tuple[int, ...]:
        if isinstance(self.prompt, str):
            return tokenize(self.prompt)
        return tuple(token & 0xFFFF_FFFF for token in self.prompt)


class EmbeddingBody(Body):
    """`/v1/embeddings`."""

    model: str = ""
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
