"""How far a long job is, on a log and on a terminal."""

import io
import sys

import pytest

from mltrading_marketdata.progress import Bar, Lines, duration, eta, shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def told(seconds, todo, of, texts):
    """Tell of steps that end at these seconds; return the lines."""
    lines, clock = [], iter([0.0, *seconds])
    progress = Lines(lines.append, clock=lambda: next(clock))
    progress.begin(todo, of)
    with progress:
        for number, text in enumerate(texts):
            progress.step(f"S{number}", text)
    return lines


def test_each_line_says_how_far_it_is_and_how_long_it_takes():
    assert told([10, 20, 30, 40], 4, 4, ["3 bars"] * 4) == [
        "1/4 S0: 3 bars, 30 s left",
        "2/4 S1: 3 bars, 20 s left",
        "3/4 S2: 3 bars, 10 s left",
        "4/4 S3: 3 bars",
    ]


def test_a_log_gets_a_line_a_second_and_each_failure():
    seconds, texts = [0.1, 0.2, 0.3, 0.4, 0.5], ["x", "x", "failed: y", "x", "x"]
    lines = told(seconds, 5, 5, texts)
    assert [line.split()[1] for line in lines] == ["S0:", "S2:", "S4:"]


def test_what_was_done_before_counts():
    assert told([5, 9], 2, 10, ["x", "x"]) == [
        "8 of 10 were done before",
        "9/10 S0: x, 5 s left",
        "10/10 S1: x",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_durations_are_as_people_say_them(seconds, said):
    assert duration(seconds) == said


def test_nothing_done_yet_has_no_time_left():
    assert eta(5, 0, 10) == 0


def test_a_terminal_gets_a_bar_and_a_line_per_failure(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    progress = shown(print, screen)
    assert isinstance(progress, Bar)
    progress.begin(2, of=3)
    with progress:
        progress.step("AAPL", "3 bars")
        progress.step("NOPE", "failed: [unknown]")
    assert "NOPE: failed: [unknown]" in screen.getvalue()
    assert "3/3" in screen.getvalue()


def test_without_rich_a_terminal_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.delitem(sys.modules, "rich.console", raising=False)
    assert type(shown(print, Terminal())) is Lines


def test_a_pipe_and_a_dumb_terminal_get_lines(monkeypatch):
    assert type(shown(print, io.StringIO())) is Lines
    monkeypatch.setenv("TERM", "dumb")
    assert type(shown(print, Terminal())) is Lines
