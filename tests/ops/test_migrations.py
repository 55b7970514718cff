"""Migrations only add: tests/cases/migrations.json holds one case a rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ops import migrations
from ops.cache import Verdict
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


SLOW = {
    "an index that keeps writers out": (
        "op.create_index('i', 'symbol', ['name'])",
        "require-concurrent-index-creation",
    ),
    "a type that rewrites the table": (
        "op.execute('ALTER TABLE symbol ALTER COLUMN name TYPE varchar(9)')",
        "changing-column-type",
    ),
    "a rule that is checked with writers waiting": (
        "op.create_check_constraint('c', 'symbol', 'id > 0')",
        "constraint-missing-not-valid",
    ),
}
QUICK = {
    "a new table with its index": (
        "",
        "op.create_table('a', sa.Column('b', sa.Integer))\n"
        "    op.create_index('i', 'a', ['b'])",
    ),
    "an index built beside the writers": (
        "concurrently = True",
        "build_index('i', 'symbol', ['name'])",
    ),
    "a contract that drops": ("contract = True", "op.drop_column('symbol', 'name')"),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", SLOW)
def test_what_lets_others_wait_is_red_with_its_statement(
    tmp_path: Path, name: str
) -> None:
    upgrade, rule = SLOW[name]
    verdict = linted(tmp_path, "", upgrade)
    assert verdict.state == "red"
    assert verdict.findings.startswith(f"0002_next.py: {rule}: ")
    assert "symbol" in verdict.findings.splitlines()[1]


@pytest.mark.integration
@pytest.mark.parametrize("name", QUICK)
def test_what_nobody_waits_for_is_green(tmp_path: Path, name: str) -> None:
    assert linted(tmp_path, *QUICK[name]).state == "green"


def linted(root: Path, head: str, upgrade: str) -> Verdict:
    """Plant a migration in a checkout, and ask squawk about its SQL."""
    package = root / migrations.PACKAGE
    (package / "migrations" / "versions").mkdir(parents=True)
    for name in ("__init__.py", "indexes.py"):
        text = (ROOT / migrations.PACKAGE / name).read_text()
        (package / name).write_text(text if name == "indexes.py" else "")
    shared = "from mltrading_marketdata.indexes import build_index"
    text = TEXT.format(head=f"{shared}\n{head}", upgrade=upgrade)
    (package / "migrations" / "versions" / "0002_next.py").write_text(text)
    (root / ".squawk.toml").write_text((ROOT / ".squawk.toml").read_text())
    (verdict,) = run(("sql",), root=root, use_cache=False)
    return verdict
