"""Migrations only add: tests/cases/migrations.json holds one case a rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ops import migrations
from ops.environment import ROOT
from ops.gates import BY_NAME
from ops.quality import run
from ops.tree import Tree

CASES = Path(__file__).parent.parent / "cases" / "migrations.json"
TEXT = """\
from alembic import op
import sqlalchemy as sa
{head}

def upgrade():
    {upgrade}

def downgrade():
    op.drop_table("whatever")
"""


@pytest.mark.parametrize(
    "case", json.loads(CASES.read_text()), ids=lambda case: case["name"]
)
def test_what_only_adds_is_told_from_what_takes_away(case: dict[str, Any]) -> None:
    text = TEXT.format(head=case.get("head", ""), upgrade=case["upgrade"])
    names = ("min_supported", "max_supported")
    said = zip(names, case.get("bounds", ["0001", "0099"]), strict=False)
    bounds = "\n".join(f'{name} = "{value}"' for name, value in said)
    found = migrations.problems({case.get("file", "0002_next.py"): text}, bounds)
    assert len(found) == ("problem" in case), found
    assert case.get("problem", "") in "".join(found)


def test_the_gate_reads_the_migrations_of_this_checkout(tmp_path: Path) -> None:
    gate, tree = BY_NAME["migrations"], Tree(ROOT)
    assert any(path.endswith("0001_first.py") for path in gate.judges(tree))
    assert any(path.endswith("schema.toml") for path in gate.judges(tree))
    folder = tmp_path / migrations.FOLDER / "versions"
    folder.mkdir(parents=True)
    (folder / "0001_bad.py").write_text("def upgrade():\n    op.drop_table('a')\n")
    (verdict,) = run(("migrations",), root=tmp_path, use_cache=False)
    assert verdict.state == "red" and "op.drop_table" in verdict.findings
