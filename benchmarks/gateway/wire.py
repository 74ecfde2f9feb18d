"""What goes over the wire in every cell: one small chat request, and the answers to it."""

import re
import time

HOST = "127.0.0.1"
PATH = "/v1/chat/completions"
MODEL = "bench"
CHUNKS = 64
PACE_NS = 20_000_000
"""Between two chunks of a paced stream."""

_BODY = (
    '{{"model":"{model}","messages":[{{"role":"user","content":"Why is the sky blue? Say it in '
    'two sentences, for a child of seven."}}],"max_tokens":64,"temperature":0.2{stream}}}'
)
MARK = re.compile(rb"#(\d+) due (\d+) left (\d+)#")
"""Each chunk's text: its number, when it was to leave the upstream, and when it did (ns)."""


def request(*, port: int, streamed: bool) -> bytes:
    """A whole request as a client sends it."""
    body = _BODY.format(model=MODEL, stream=',"stream":true' if streamed else "").encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAuthorization: Bearer sk-bench\r\n"
        "Accept: */*\r\nUser-Agent: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def plain_answer() -> bytes:
    """A whole answer that is not streamed."""
    body = (
        b'{"id":"chatcmpl-1","object":"chat.completion","created":1795215831,"model":"bench",'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"Light from the sun is made'
        b" of all colours, and the air throws the blue part about the most. So blue comes to your "
        b'eyes from every side."},"logprobs":null,"finish_reason":"stop","stop_reason":null}],'
        b'"usage":{"prompt_tokens":21,"total_tokens":53,"completion_tokens":32}}'
    )
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_EVENT = (
    'data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795215831,'
    '"model":"bench","choices":[{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,'
    '"finish_reason":{reason}}}]}}\n\n'
)
_USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795215831,'
    b'"model":"bench","choices":[],"usage":{"prompt_tokens":21,"total_tokens":85,'
    b'"completion_tokens":64}}\n\n'
)


def event(number: int, due_ns: int) -> bytes:
    """One chunk of a stream, stamped with the time at which this is called."""
    text = f"#{number} due {due_ns} left {time.monotonic_ns()}#"
    reason = '"stop"' if number == CHUNKS - 1 else "null"
    return chunked(_EVENT.format(text=text, reason=reason).encode())


def stream_end(*, usage: bool) -> bytes:
    """What follows the last chunk; with the token counts where the request asked for them."""
    return (chunked(_USAGE) if usage else b"") + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
