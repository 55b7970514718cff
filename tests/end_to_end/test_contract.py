"""Taking a column away takes three deploys; a shorter way is refused."""

from __future__ import annotations

import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ops.migrations import FOLDER
from tests.end_to_end.conftest import Project, copy_checkout

pytestmark = pytest.mark.e2e

ADDS = '''"""Add a note to symbols."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down}"


def upgrade() -> None:
    """Add the column."""
    op.add_column("symbol", sa.Column("note", sa.Text))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("symbol", "note")
'''
TAKES = '''"""Drop the note of symbols, which no release needs any more."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down}"
contract = True


def upgrade() -> None:
    """Drop the column."""
    op.drop_column("symbol", "note")


def downgrade() -> None:
    """Add the column."""
    op.add_column("symbol", sa.Column("note", sa.Text))
'''


class Columns(Project):
    """A checkout whose last migrations are written here; what serves is local."""

    def __init__(self, folder: Path, state: Path) -> None:
        super().__init__(folder, state)
        self.versions = folder / FOLDER / "versions"
        self.newest = max(path.name[:4] for path in self.versions.glob("[0-9]*.py"))
        self.added = f"{int(self.newest) + 1:04}"

    def ship(
        self, most: str, *, taken: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Deploy a commit whose code works on the database up to `most`.

        It has the migration that adds a column, and, if `taken`, the one that drops it.
        """
        adds = ADDS.format(revision=self.added, down=self.newest)
        (self.versions / f"{self.added}_note.py").write_text(adds)
        takes = self.versions / "0100_drop_note.py"
        takes.unlink(missing_ok=True)
        if taken:
            takes.write_text(TAKES.format(revision="0100", down=self.added))
        bounds = self.folder / FOLDER / "schema.toml"
        before, _, _ = bounds.read_text().rpartition("max_supported")
        bounds.write_text(f'{before}max_supported = "{most}"\n')
        self.change()
        return self.deploy()

    def database(self) -> tuple[str, bool]:
        """Return the revision, and whether symbols have the column."""
        path = self.local / "data" / "mltrading.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            said = connection.execute("SELECT version_num FROM alembic_version")
            (revision,) = said.fetchone()
            columns = connection.execute("PRAGMA table_info(symbol)").fetchall()
        return revision, "note" in [column[1] for column in columns]

    def serves(self) -> tuple[str, bool]:
        found = self.status()
        return found["current"], found["healthy"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Columns]:
    """A checkout that judges its migrations, where nothing serves yet."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    file = folder / "ops" / "environments.toml"
    text = file.read_text().replace('gates = ["quality"]', 'gates = ["migrations"]', 1)
    file.write_text(text.replace("port = 8050", "port = 0", 1))
    with tempfile.TemporaryDirectory(prefix="mlt-") as state:
        project = Columns(folder, Path(state))
        yield project
        assert project.inv("down").returncode == 0


def test_a_column_goes_when_no_release_that_may_get_traffic_needs_it(
    project: Columns,
) -> None:
    added = project.ship("0099")
    early = project.ship("0199", taken=True)
    assert (added.returncode, early.returncode) == (0, 1), added.stderr
    refusal = "v1 works on 0001 to 0099, and the database would come to 0100"
    assert refusal in early.stderr
    assert project.database() == (project.added, True)

    ready = project.ship("0199")
    still = project.ship("0199", taken=True)
    # v1 stands by: nobody needs a deploy to give it traffic again.
    assert (ready.returncode, still.returncode) == (0, 1), ready.stderr
    assert refusal in still.stderr
    assert project.database() == (project.added, True)
    assert project.serves() == ("v2", True)

    usual = project.ship("0199")
    gone = project.ship("0199", taken=True)
    assert (usual.returncode, gone.returncode) == (0, 0), usual.stderr + gone.stderr
    assert "backup" in gone.stderr
    assert project.database() == ("0100", False)
    assert project.serves() == ("v4", True)


def test_who_no_longer_needed_it_serves_without_it_and_who_did_is_not_chosen(
    project: Columns,
) -> None:
    for wanted in ("v3", "v2"):
        back = project.inv("rollback")
        assert back.returncode == 0, back.stderr
        assert project.serves() == (wanted, True)
    for words in ((), ("--to", "v1")):
        refused = project.inv("rollback", *words)
        assert refused.returncode == 1
        assert "v1 works on 0001 to 0099, the database is at 0100" in refused.stderr
    assert project.serves() == ("v2", True)


def test_an_artefact_that_needs_what_is_gone_is_refused(project: Columns) -> None:
    refused = project.ship("0099")
    assert refused.returncode == 1
    said = "the database is at 0100, this artefact works on 0001 to 0099"
    assert said in refused.stderr
    # The same code with a wider range needs no script that it does not have.
    assert project.ship("0199").returncode == 0
    assert project.serves()[1] and project.database() == ("0100", False)
