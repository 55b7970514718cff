"""What people read: durations, tables that fit."""

from __future__ import annotations

import pytest

from ops import report


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, ""),
        (0.031, "31 ms"),
        (2.4, "2.40 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (185.0, "3 min 5 s"),
        (3599.7, "1 h 0 min"),
        (89_674.0, "1 d 0 h"),
        (174_614.0, "2 d 0 h"),
    ],
)
def test_a_duration_has_two_units_at_most(value: float | None, said: str) -> None:
    assert report.seconds(value) == said


def test_a_table_is_cut_to_a_terminal_and_whole_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("NO_COLOR", "1")
    row = ("deploy", "x" * 40)
    report.data_table([row])
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    report.data_table([row])
    whole, cut = capsys.readouterr().out.splitlines()
    assert whole.endswith("x" * 40)
    assert (len(cut), cut[-1]) == (20, "\u2026")
