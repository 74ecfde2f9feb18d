"""One log on stderr, which says nothing of what is meant to happen."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
import structlog

from melodi.errors import CutShort
from melodi.logs import configure_logging


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_a_warning_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """With its facts beside it; what is less than a warning is not said."""
    configure_logging()
    structlog.get_logger("melodi.test").info("quiet")
    structlog.get_logger("melodi.test").warning("meter_fails", collector="nvml")
    logging.getLogger("elsewhere").warning("as well")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "meter_fails" in lines[0]
    assert "nvml" in lines[0]
    assert "as well" in lines[1]


def test_an_answer_cut_on_purpose_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Other exceptions keep their traceback."""
    configure_logging()
    secret = "a local variable"
    stopped = asyncio.CancelledError("the grace time is over")
    for error in (CutShort("the backend died"), stopped, ValueError("a bug")):
        try:
            raise error
        except BaseException:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    talk = capsys.readouterr().err
    assert "the backend died" not in talk
    assert "the grace time is over" not in talk
    assert "ValueError: a bug" in talk
    assert secret not in talk.replace("secret", "")
