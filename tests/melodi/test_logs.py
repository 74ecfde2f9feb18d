"""One log on stderr, which says nothing of what is meant to happen."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from waiting import PATIENCE_SECONDS

from melodi.errors import CutShort
from melodi.logs import PatientHandler, configure_logging, lines_lost


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for one in set(root.handlers) - set(handlers):
        one.close()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What has been logged until now."""
    for one in logging.getLogger().handlers:
        one.flush()
    return capsys.readouterr().err


def test_a_warning_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """With its facts beside it; what is less than a warning is not said."""
    configure_logging()
    structlog.get_logger("melodi.test").info("quiet")
    structlog.get_logger("melodi.test").warning("meter_fails", collector="nvml")
    logging.getLogger("elsewhere").warning("as well")
    lines = said(capsys).splitlines()
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
    talk = said(capsys)
    assert "the backend died" not in talk
    assert "the grace time is over" not in talk
    assert "ValueError: a bug" in talk
    assert secret not in talk.replace("secret", "")


UNREAD = """
import logging
from melodi.logs import PatientHandler, configure_logging, lines_lost, lines_lost
from melodi.cli.output import say

configure_logging()
for number in range(5_000):
    logging.getLogger("x").warning("line %d %s", number, "x" * 200)
say("the end")
print(lines_lost())
"""


def test_a_stderr_that_nobody_reads_holds_up_nobody() -> None:
    """The process says all it has to say, counts what was lost, and ends."""
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lost = int(process.stdout.readline())
        assert process.wait(PATIENCE_SECONDS) == 0
        assert process.stderr is not None
        read = process.stderr.read().count("line ")
    # A pipe holds 64 KiB, the queue a thousand lines.
    assert lost > 3_000
    assert 100 < read < 1_000


def test_lost_lines_are_said_once_somebody_reads_again() -> None:
    """With their number, so that the reader knows what the log does not tell."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading) as reader:
        handler = PatientHandler(stream)
        before = lines_lost()
        for number in range(4_000):
            record = logging.LogRecord(
                "x", logging.WARNING, "", 0, f"{number} {'x' * 200}", (), None
            )
            handler.emit(record)
        lost = lines_lost() - before
        assert lost > 0
        last = ""
        while "lost" not in last:
            last = reader.readline()
        handler.close()
    assert last == f"{lost} lines of the log were lost: nobody took them\n"


def test_a_line_that_cannot_be_made_costs_itself_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """The next one is said."""
    configure_logging()
    before = lines_lost()
    logging.getLogger("x").warning("%d is no number", "text")
    logging.getLogger("x").warning("well")
    assert "well" in said(capsys)
    assert lines_lost() == before + 1
