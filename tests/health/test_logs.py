"""Logs are lines of JSON with ids and without secrets; text on a terminal."""

import io
import json
import logging

import pytest

from mltrading_health import logs


class Terminal(io.StringIO):
    """A stream that people look at."""

    def isatty(self):
        return True


@pytest.fixture
def log():
    """Give a logger; put the root logger back afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield logging.getLogger("test.logs")
    root.setLevel(level)
    root.handlers[:] = handlers
    logs.request_id.set("")


@pytest.fixture
def written(log):
    """Configure the logs; give what was written since, a line an object."""
    stream = io.StringIO()
    logs.configure(
        "info", "r7", service="dashboard", stream=stream, secrets=["correct-horse"]
    )
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_where_and_for_which_request(log, written):
    logs.request_id.set("abc")
    log.info("drew %s", "AAPL", extra={"seconds": 0.25, "page": "chart"})
    said = written()[0]
    assert said.pop("time").endswith("Z") and said.pop("pid") > 0
    assert said == {
        "level": "info",
        "logger": "test.logs",
        "message": "drew AAPL",
        "request_id": "abc",
        "service": "dashboard",
        "release": "r7",
        "seconds": 0.25,
        "page": "chart",
    }


def test_without_a_request_there_is_no_id(log, written):
    log.info("hello")
    assert "request_id" not in written()[0]


def test_an_exception_stays_on_its_line(log, written):
    try:
        raise ValueError("at\nonce")
    except ValueError:
        log.exception("failed")
    (said,) = written()
    assert said["error"] == "ValueError: at\nonce"
    assert "test_logs.py" in said["trace"]


def test_what_a_visitor_sent_cannot_begin_a_line(log, written):
    log.info("path %s", '/x\n{"level": "error"}')
    assert len(written()) == 1


def test_an_extra_cannot_replace_what_a_line_says_of_itself(log, written):
    log.info("hello", extra={"time": "never", "release": "r0", "level": "x"})
    said = written()[0]
    assert (said["release"], said["level"]) == ("r7", "info")
    assert said["time"] != "never"


def test_no_secret_is_written(log, written):
    try:
        raise OSError("postgresql://me:hunter22@db/x")
    except OSError:
        log.exception(
            "token=abc123456 and correct-horse",
            extra={
                "db_password": "hunter33",
                "headers": {"Authorization": "hunter44", "list": ["x:correct-horse"]},
            },
        )
    text = json.dumps(written())
    for secret in ("hunter", "abc123456", "correct-horse"):
        assert secret not in text
    assert "***" in text


def test_values_that_json_does_not_know_are_written(log, written):
    thing = object()
    log.info("x", extra={"nan": float("nan"), "thing": thing, "set": {1}, "no": None})
    said = written()[0]
    assert (said["nan"], said["thing"], said["set"]) == ("nan", str(thing), [1])
    assert "no" not in said


def test_arguments_that_do_not_fit_are_shown_and_not_raised():
    record = logging.LogRecord("x", 20, "", 0, "%d apples", ("many",), None)
    assert json.loads(logs.Json().format(record))["message"] == "%d apples ('many',)"


def test_below_the_level_nothing_is_written(log, written):
    log.debug("hello")
    assert written() == []


def test_a_terminal_gets_text(log):
    stream = Terminal()
    logs.configure(stream=stream, secrets=["correct-horse"])
    logs.request_id.set("abc")
    log.warning("slow correct-horse", extra={"seconds": 3, "token": "abc"})
    line = stream.getvalue()
    assert line.endswith(
        "Z WARNING test.logs slow *** seconds=3 token=*** request_id=abc\n"
    )


def test_a_form_can_be_chosen(log):
    stream = io.StringIO()
    logs.configure(stream=stream, as_json=False)
    log.info("hello")
    assert stream.getvalue().endswith("INFO test.logs hello\n")


def test_configured_again_a_line_is_written_once(log):
    first, second = io.StringIO(), io.StringIO()
    logs.configure(stream=first)
    logs.configure(stream=second)
    log.info("hello")
    assert first.getvalue() == "" and len(second.getvalue().splitlines()) == 1


def test_loggers_with_handlers_of_their_own_are_taken_along(log):
    stream = io.StringIO()
    theirs = logging.getLogger("test.theirs")
    theirs.addHandler(logging.StreamHandler(io.StringIO()))
    theirs.propagate = False
    logs.configure(stream=stream, also=["test.theirs"])
    theirs.warning("hello")
    assert json.loads(stream.getvalue())["logger"] == "test.theirs"


def test_a_level_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'loud' is no level"):
        logs.configure("loud")
