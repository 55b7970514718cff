"""What GitHub is shown: ranked, within its limits, nothing left out silently."""

from __future__ import annotations

import pytest

from ops import github
from ops.github import Finding


def test_a_place_in_a_gates_words_becomes_an_annotation() -> None:
    (found,) = github.of_gate("flake8", "ops/a.py:3:1: F401 unused")
    assert github.annotations([found]) == [
        "::error title=flake8,file=ops/a.py,line=3::F401 unused"
    ]


@pytest.mark.parametrize(
    ("text", "file", "said"),
    [
        ("--- a/ops/a.py\n+++ b/ops/a.py\n@@ -1 +1 @@", "ops/a.py", "not as it should"),
        ("Broken contracts\nlong story", "", "Broken contracts"),
    ],
)
def test_what_names_no_line_still_says_something(
    text: str, file: str, said: str
) -> None:
    (found,) = github.of_gate("black", text)
    assert found.file == file and found.said.startswith(said)


def test_what_this_change_touched_comes_first() -> None:
    old, new = Finding("error", "x", "a", "old.py"), Finding(
        "error", "x", "b", "new.py"
    )
    warning = Finding("warning", "x", "c", "new.py")
    assert github.ranked([warning, old, new], {"new.py"}) == [new, old, warning]


def test_what_is_too_much_to_be_shown_is_counted() -> None:
    many = [Finding("error", "x", str(n), "a.py", n + 1) for n in range(25)]
    lines = github.annotations(many)
    assert len(lines) == github.LIMIT
    assert lines[-1].endswith("::16 more; all are in the summary")


def test_no_text_can_end_an_annotation_or_begin_another() -> None:
    (line,) = github.annotations([Finding("error", "a,b:c", "50%\n::set-env::")])
    assert line == "::error title=a%2Cb%3Ac::50%25%0A::set-env::"


def test_a_summary_is_cut_where_it_would_be_refused_and_says_so() -> None:
    many = [Finding("error", "x", "y" * 1000, "a.py", n) for n in range(3000)]
    text = github.summary([("tests", "red")], ("part", "state"), {"commit": "c"}, many)
    assert len(text.encode()) < 1024 * 1024
    assert "| tests | red |" in text and text.rstrip().endswith("more do not fit here")


def test_a_cell_can_break_no_table() -> None:
    text = github.summary([("a|b\nc", "<b>")], ("x", "y"), {}, [])
    assert "| a\\|b c | &lt;b> |" in text
