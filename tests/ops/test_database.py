"""Reset, undo, back up, restore, migrate: a real data layer on this machine."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import backups, database, operate
from ops.environment import ROOT, Environment
from ops.errors import Refused, StepFailed, Usage
from ops.migrations import FOLDER
from ops.plan import bounds, plan_migrate
from ops.targets.agent import Agent
from ops.targets.local import LocalTarget
from ops.targets.vault import Vault
from tests.ops import worlds
from tests.ops.fleets import Fleet, fleet

__all__ = ["fleet"]
pytestmark = pytest.mark.integration

VERSIONS = sorted((ROOT / FOLDER / "versions").glob("0*.py"))
SHIPPED = [path.name[:4] for path in VERSIONS]
HEAD = SHIPPED[-1]


def staged(agent: Agent, url: str, kind: str, name: str = "local") -> None:
    """Stage a release whose interpreter is ours, and give it traffic."""
    said = {"DATABASE_URL": url, "ENVIRONMENT": name, "ENVIRONMENT_KIND": kind}
    record = replace(worlds.release(1), schema=worlds.schema([HEAD, "0001", "0099"]))
    agent.stage(record.as_json(), [], said)
    programs = agent.environments / record.environment / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    # A link would make Python look for its own packages beside it.
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    agent.switch(1)


class Here:
    """An environment on this machine with a database of its own."""

    def __init__(self, root: Path, kind: str) -> None:
        self.agent = Agent(root / "local")
        self.agent.prepare()
        self.file = self.agent.root / "data" / "market.db"
        staged(self.agent, f"sqlite:///{self.file}", kind)
        self.agent.data(1, ["prepare"], 60)

    def write(self, note: str) -> None:
        with closing(sqlite3.connect(self.file)) as c, c:
            c.execute("INSERT INTO meta VALUES (?, ?)", (note, ""))

    def notes(self) -> set[str]:
        with closing(sqlite3.connect(self.file)) as c:
            found = {row[0] for row in c.execute("SELECT key FROM meta")}
        return found - {"environment", "seeding"}

    def runs(self) -> list[tuple[str, str]]:
        history = self.agent.journal.history()
        return [(run.op, run.outcome) for run in history.runs]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Here]:
    """Return what makes an environment of a kind; each command is for that one."""

    def made(kind: str) -> Here:
        monkeypatch.setitem(os.environ, "MLTRADING_STATE", str(tmp_path))
        row = replace(worlds.ENVIRONMENT, kind=kind)
        for module in (database, backups, operate):
            monkeypatch.setattr(module, "load", lambda name: row)
            monkeypatch.setattr(module, "open_target", LocalTarget)
        return Here(tmp_path, kind)

    return made


@pytest.fixture
def here(make: Callable[[str], Here]) -> Here:
    return make("development")


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


# Reset and take back ------------------------------------------------------------------


def test_a_reset_is_undone_and_both_are_in_the_journal(
    here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    here.write("mine")
    database.reset("local", yes=True, as_json=True)
    done = said(capsys)
    assert here.notes() == set() and done["schema"] == HEAD
    assert done["aside"].startswith("trash_") and done["sha256"]
    database.reset("local", undo=True, yes=True)
    assert here.notes() == {"mine"}
    assert here.runs() == [("db-reset", "good"), ("db-undo", "good")]


def test_a_plan_changes_nothing_and_names_the_backup(
    here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    here.write("mine")
    database.reset("local", dry_run=True, as_json=True)
    done = said(capsys)
    assert [step["step"] for step in done["steps"]] == ["backup", "reset", "seed"]
    assert (done["database"], done["guarded"]) == ("market.db", False)
    assert here.notes() == {"mine"} and here.runs() == []


def test_without_a_person_or_yes_nothing_is_touched(here: Here) -> None:
    with pytest.raises(Refused, match="nobody is here") as refused:
        database.reset("local")
    assert refused.value.next == "inv db-reset --env local --yes"
    assert here.runs() == []


def test_an_undo_needs_something_that_is_set_aside(here: Here) -> None:
    with pytest.raises(Refused, match="nothing is set aside"):
        database.reset("local", undo=True, yes=True)


UNSURE: list[tuple[dict[str, Any], str]] = [
    ({"yes": True}, "not emptied or replaced by mistake"),
    ({"force": True}, "nobody is here"),
    ({"force": True, "yes": True}, "nobody is here"),
    ({"force": True, "database": "other.db"}, "is not the name of the database"),
    ({"database": "market.db"}, "not emptied or replaced by mistake"),
]


@pytest.mark.parametrize("by", ["marker", "environment"])
def test_production_is_refused_without_force_and_its_name(
    make: Callable[[str], Here], by: str
) -> None:
    here = make("production" if by == "environment" else "development")
    if by == "marker":
        with closing(sqlite3.connect(here.file)) as c, c:
            c.execute("UPDATE meta SET value = 'prod production'")
    here.write("mine")
    for flags, what in UNSURE:
        with pytest.raises(Refused, match=what) as refused:
            database.reset("local", **flags)
        assert "--force" in refused.value.next or refused.value.allowed == "market.db"
    assert here.notes() == {"mine"} and here.runs() == []


def test_production_is_reset_by_who_types_its_name(make: Callable[[str], Here]) -> None:
    here = make("production")
    here.write("mine")
    database.reset("local", force=True, database="market.db")
    assert here.notes() == set()


def test_the_name_is_typed_at_a_terminal(
    make: Callable[[str], Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make("production")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for typed in ("local", "", "market.db"):
        monkeypatch.setattr("builtins.input", lambda _, typed=typed: typed)
        if typed != "market.db":
            with pytest.raises(Refused, match="nothing was touched"):
                database.reset("local", force=True)
    database.reset("local", force=True)
    assert here.runs() == [("db-reset", "good")]


def test_a_failure_ends_the_run_and_keeps_the_data(here: Here) -> None:
    here.write("mine")
    (here.agent.root / "backups").rmdir()
    (here.agent.root / "backups").write_text("in the way")
    with pytest.raises((StepFailed, Refused)):
        database.reset("local", yes=True)
    assert here.notes() == {"mine"}
    assert here.runs() in ([], [("db-reset", "failed")])


# Back up and restore ------------------------------------------------------------------


def test_a_backup_is_listed_and_brought_here(
    here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here.write("mine")
    backups.backup("local", path=str(tmp_path), as_json=True)
    done = said(capsys)
    assert Path(done["path"]).parent == tmp_path and "contents" not in done
    backups.backup("local", listed=True, as_json=True)
    (row,) = said(capsys)["backups"]
    assert row["name"] == done["name"] and row["proved"] and row["schema"] == HEAD
    with closing(sqlite3.connect(done["path"])) as c:
        assert ("mine",) in c.execute("SELECT key FROM meta").fetchall()
    backups.backup("local", listed=True)
    assert done["name"] in capsys.readouterr().out


@pytest.mark.parametrize("kept", [True, False])
def test_a_restore_brings_a_kept_backup_or_a_file_back(
    here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: bool
) -> None:
    here.write("mine")
    backups.backup("local", path=str(tmp_path / "copy"), as_json=True)
    name = said(capsys)["name"]
    here.write("late")
    where = {"backup": name} if kept else {"path": str(tmp_path / "copy")}
    backups.restore("local", **where, dry_run=True, as_json=True)
    plan = said(capsys)["steps"]
    assert [one["step"] for one in plan][-2:] == ["backup", "restore"]
    assert f"rows, schema {HEAD}" in plan[-1]["text"] and here.notes() == {
        "mine",
        "late",
    }
    backups.restore("local", **where, yes=True, as_json=True)
    assert said(capsys)["compared"] is True and here.notes() == {"mine"}
    database.reset("local", undo=True, yes=True)
    assert here.notes() == {"mine", "late"}
    assert here.runs()[1] == ("db-restore", "good")


def test_a_damaged_file_is_refused_before_anything_is_touched(
    here: Here, tmp_path: Path
) -> None:
    here.write("mine")
    backups.backup("local", path=str(tmp_path / "copy"))
    text = bytearray((tmp_path / "copy").read_bytes())
    text[5000:5064] = bytes(255 - each for each in text[5000:5064])
    (tmp_path / "copy").write_bytes(text)
    with pytest.raises(StepFailed, match="could not restore") as failed:
        backups.restore("local", path=str(tmp_path / "copy"), yes=True)
    assert "is damaged: its sha256" in failed.value.detail
    assert here.notes() == {"mine"} and here.runs()[-1] == ("db-restore", "failed")


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({}, "which backup"),
        ({"backup": "a", "path": "b"}, "which backup"),
        ({"path": "/nowhere"}, "is no file"),
    ],
)
def test_a_restore_needs_one_backup(
    here: Here, flags: dict[str, str], what: str
) -> None:
    with pytest.raises(Usage, match=what):
        backups.restore("local", **flags)


@pytest.mark.parametrize("name", ["none", "../state/key", "x.json", ".hidden"])
def test_a_name_that_no_backup_has_is_refused(here: Here, name: str) -> None:
    with pytest.raises(Refused, match="there is no backup") as refused:
        backups.restore("local", backup=name, yes=True)
    assert "--list" in refused.value.next
    with pytest.raises(Refused):
        Vault(here.agent.root).path(name)


def test_a_path_that_cannot_be_written_is_named_before_the_backup(
    here: Here, tmp_path: Path
) -> None:
    (tmp_path / "there").touch()
    for path in ("there", "no/folder"):
        with pytest.raises(Usage):
            backups.backup("local", path=str(tmp_path / path))
    assert here.runs() == []


def test_a_database_that_cannot_be_read_is_restored_without_a_backup_of_it(
    here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    here.write("mine")
    backups.backup("local", as_json=True)
    name = said(capsys)["name"]
    here.file.write_bytes(b"not a database at all" * 500)
    backups.restore("local", backup=name, yes=True)
    assert here.notes() == {"mine"}
    assert "can't be read" in capsys.readouterr().err


def test_old_trash_goes_with_a_prune(here: Here) -> None:
    database.reset("local", yes=True)
    operate.prune("local")
    assert len(list(here.file.parent.glob("*.trash-*"))) == 1
    operate.prune("local", days=0)
    assert not list(here.file.parent.glob("*.trash-*"))


# Migrate ------------------------------------------------------------------------------


def test_a_dry_run_prints_the_sql_and_the_drift(
    here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(here.file)) as c, c:
        c.execute("CREATE TABLE later (id INTEGER)")
    database.migrate("local", dry_run=True)
    told = capsys.readouterr()
    assert "nothing is pending" in told.err and "the table later" in told.err
    here.file.unlink()
    database.migrate("local", dry_run=True)
    told = capsys.readouterr()
    assert "CREATE TABLE chunk" in told.out and not here.file.exists()
    database.migrate("local", dry_run=True, as_json=True)
    assert said(capsys)["pending"] == SHIPPED


def test_a_migration_is_journalled_with_where_it_led(
    here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    here.file.unlink()
    database.migrate("local", as_json=True)
    assert said(capsys)["applied"] == SHIPPED
    assert here.runs() == [("migrate", "good")]
    assert here.agent.journal.history().schema == HEAD


def test_a_migration_that_a_release_standing_by_cannot_read_is_refused() -> None:
    world = worlds.world(
        {
            "current": 2,
            "slots": {"1": "alive a", "2": "alive b"},
            "schemas": {
                "1": ["0001", "0001", "0001"],
                "2": ["0002", "0001", "0099"],
            },
        }
    )
    with pytest.raises(Refused, match="v1 works on 0001 to 0001"):
        plan_migrate(world, worlds.ENVIRONMENT)
    assert bounds(world) == "0001-0001"


def test_what_migrates_hears_what_all_releases_can_read() -> None:
    schemas = {"1": ["0001", "0001", "0099"], "2": ["0002", "0001", "0199"]}
    slots = {"1": "alive a", "2": "alive b"}
    world = worlds.world({"current": 2, "slots": slots, "schemas": schemas})
    (step,) = plan_migrate(world, worlds.ENVIRONMENT).steps
    assert (step.verb, step.release, step.within) == ("migrate", 2, "0001-0099")
    nothing = worlds.world({"current": None, "slots": {}})
    with pytest.raises(Refused, match="nothing is deployed"):
        plan_migrate(nothing, worlds.ENVIRONMENT)


def test_a_release_that_is_older_may_say_less_of_what_it_did() -> None:
    assert database._summary("backup", {"backup": "x", "bytes": 5}).endswith("bytes 5")
    assert database._summary("reset", {"database": "sqlite"}) == "database sqlite"


# On a fleet ---------------------------------------------------------------------------


def test_a_fleet_keeps_backups_on_a_host_and_takes_files_of_the_deployer(
    fleet: Fleet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "shared.db"
    for name in "abc":
        agent = fleet.agent(name)
        agent.prepare()
        staged(agent, f"sqlite:///{file}", "development")
    fleet.agent("a").data(1, ["prepare"], 60)
    for module in (database, backups):
        monkeypatch.setattr(module, "load", lambda name: fleet.environment)
        monkeypatch.setattr(module, "open_target", lambda _: fleet.target())
    monkeypatch.setattr("ops.alerts.outbox.kick", lambda: None)
    backups.backup("staging", path=str(tmp_path / "here"), as_json=True)
    done = said(capsys)
    assert done["backup"].startswith(str(fleet["a"].root / "backups"))
    assert Path(done["path"]).read_bytes() == Path(done["backup"]).read_bytes()
    backups.restore("staging", path=str(tmp_path / "here"), yes=True, as_json=True)
    assert said(capsys)["compared"] is True
    backups.backup("staging", listed=True, as_json=True)
    assert {row["host"] for row in said(capsys)["backups"]} == {"a"}
    assert {run.op for run in fleet.agent("c").journal.history().runs} == {
        "db-backup",
        "db-restore",
    }


def test_a_file_that_arrives_otherwise_than_it_was_sent_is_not_kept(
    tmp_path: Path,
) -> None:
    vault = Vault(tmp_path)
    vault.folder.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("x")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"data"))
    with pytest.raises(StepFailed, match="other contents"):
        vault.receive("a.backup", "0" * 64, "", io.BytesIO(out.getvalue()))
    assert list(vault.folder.iterdir()) == []


def test_what_only_looks_may_be_asked_without_the_lease_and_nothing_else(
    here: Here,
) -> None:
    assert here.agent.consult(1, ["schema"], 60)["name"] == "market.db"
    for words in (["reset"], ["migrate"], ["restore", "x"], ["prepare"]):
        with pytest.raises(Refused, match="is not asked without the lease"):
            here.agent.consult(1, words, 60)


def test_the_kind_of_an_environment_reaches_its_release() -> None:
    row = Environment(**{**_fields(worlds.ENVIRONMENT), "kind": "production"})
    assert row.resolved({})["ENVIRONMENT_KIND"] == "production"


def _fields(row: Environment) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}
