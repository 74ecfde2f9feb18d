"""What a backend says of its error is kept; what it repeats of the request is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodi.inference.backends.refusals import error_text, without_quotations

SECRET = "a patient's file"
INPUT = {"model": None, "messages": [{"role": "user", "content": SECRET}], "input": SECRET}
MISSING = {"type": "missing", "loc": ("body", "messages", 0), "msg": "Field required"}
LOST = {"type": "int_type", "loc": ("body", "n"), "msg": "Not an integer"}
SAID = "body.messages.0: Field required (missing)"
BOTH = f"{SAID}; body.n: Not an integer (int_type)"
FINDINGS = [MISSING | {"input": INPUT}, LOST | {"input": INPUT, "ctx": {"error": SECRET}}]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (str(FINDINGS), BOTH),
        (json.dumps(FINDINGS), BOTH),
        (json.dumps(FINDINGS, indent=2), BOTH),
        (f"Invalid: {FINDINGS}", f"Invalid: {BOTH}"),
        (json.dumps({"detail": FINDINGS}), BOTH),
        (f"2 errors:\n  {FINDINGS[0]}\n  {FINDINGS[1]}\n\n  File x", f"2 errors:\n  {BOTH}"),
        (f"Bad message: {INPUT}", "Bad message: "),
        (
            f"1 error\nn\n  No string [type=string_type, input_value={[SECRET]}, input_type=list]",
            "1 error\nn\n  No string [type=string_type ...",
        ),
    ],
    ids=["python", "json", "indented", "prefixed", "nested", "lines", "object", "pydantic"],
)
def test_a_dump_becomes_what_it_says(message: str, said: str) -> None:
    """Location, message and type of each finding; the request's parts are gone."""
    assert without_quotations(message) == said


def test_a_dump_that_cannot_be_read_ends_before_what_it_quotes() -> None:
    """One with a live object in it, or torn off, is no literal."""
    for tail in (", 'ctx': {'error': ValueError()}}]", "", " and so on]"):
        dump = f"[{str(MISSING)[:-1]}, 'input': {INPUT}{tail}"
        assert without_quotations(dump).endswith("'msg': 'Field required' ...")


@given(st.text())
def test_plain_words_stay_as_they_are(text: str) -> None:
    """Where nothing is quoted nothing is taken away, brackets or not."""
    message = text.translate(str.maketrans("", "", "[]{}="))
    for one in (f"model {message!r} not found", f"unexpected fields: {{{message!r}}}"):
        assert "input" in one or without_quotations(one) == one


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_nothing_said_breaks_the_reader(value: object) -> None:
    """Whatever JSON an answer holds, the message is text or none."""
    for key in ("error", "detail"):
        assert isinstance(error_text({key: value}), str | None)
    assert isinstance(without_quotations(json.dumps(value)), str)
