"""What is fixed without asking."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import errors, fixes
from ops.quality import run
from tests.ops.checkouts import write


@pytest.mark.integration
def test_fmt_mends_what_black_and_isort_find(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tree, "ops/plan.py", 'import sys\nimport os\nx = {  "a":1 }\n')
    assert fixes.fmt(root=tree) == ("ops/plan.py",)
    assert {v.state for v in run(("black", "isort"), root=tree)} == {"green"}
    assert "formatted ops/plan.py" in capsys.readouterr().out


@pytest.mark.integration
def test_fmt_says_that_a_file_cannot_be_parsed(tree: Path) -> None:
    write(tree, "ops/plan.py", "def (:\n")
    with pytest.raises(errors.StepFailed, match="can't be formatted"):
        fixes.fmt(root=tree)
