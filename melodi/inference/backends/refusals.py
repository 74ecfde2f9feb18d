"""What a backend says of its error, without the parts of the request that it repeats.

Validators quote what they refuse, and what they refuse may be a prompt.
"""

import ast
import json
import re
from collections.abc import Mapping

MAX_READ_CHARS = 64 * 1024
"""A longer dump is not read: it is cut at its first quotation."""
QUOTED = re.compile(r"""[,{(\[]?\s*(["']input["']\s*:|\binput(_value)?=)""")
"""Where pydantic and what is built on it begin to quote: 'input': ..., input_value=..."""
DUMP = re.compile(r"[\[{].*[\]}]", re.DOTALL)
PARSE_ERRORS = (ValueError, SyntaxError, MemoryError, RecursionError)


def error_text(value: Mapping[str, object]) -> str | None:
    """The message of an error object in any backend's shape; None where it is no error."""
    error = value.get("error")
    if error:
        return said(error) or "unnamed error"
    if value.get("object") == "error":
        return said(value) or "unnamed error"
    detail = value.get("detail")
    return None if detail is None else said(detail)


def without_quotations(message: str) -> str:
    """A message without what it quotes of the request.

    A dump of objects, as JSON or as Python writes it, becomes what they say: their location,
    message and type. What cannot be read is cut where the first quotation begins.
    """
    dump = DUMP.search(message[:MAX_READ_CHARS])
    if dump is None:
        return _cut(message)
    before = message[: dump.start()]
    value = _parsed(dump.group())
    if value is not None:
        return _cut(before) + (said(value) or "") if _is_object(value) else _cut(message)
    lines = [_parsed(line) for line in dump.group().splitlines()]
    if all(isinstance(one, dict) for one in lines):
        return _cut(before) + (said(lines) or "")
    return _cut(message)


def said(value: object) -> str | None:
    """The words of an error, of a finding, or of several; None where it has none."""
    if isinstance(value, str):
        return without_quotations(value) or None
    if isinstance(value, list | tuple):
        return "; ".join(filter(None, map(said, value))) or None
    if not isinstance(value, dict):
        return None
    if "msg" in value:
        return _finding(value)
    if isinstance(value.get("error"), dict | str):
        return said(value["error"])
    return said(value.get("message")) or said(value.get("detail")) or _word(value.get("type"))


def _finding(value: Mapping[str, object]) -> str:
    location = value.get("loc")
    places = location if isinstance(location, list | tuple) else ()
    where = ".".join(str(one) for one in places if isinstance(one, str | int))
    kind = _word(value.get("type"))
    parts = (where and f"{where}:", _cut(_word(value["msg"])), kind and f"({kind})")
    return " ".join(filter(None, parts))


def _is_object(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, dict) for one in value)
    return isinstance(value, dict)


def _parsed(text: str) -> object:
    """What JSON or a Python literal says; None where it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text.strip())
        except PARSE_ERRORS:
            continue
    return None


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _cut(text: str) -> str:
    found = QUOTED.search(text)
    return text if found is None else f"{text[: found.start()]} ..."
