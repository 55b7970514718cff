"""Ingestion and export through the menu: asked here, merged where the database is."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mltrading_marketdata.__main__ import main
from mltrading_marketdata.migration import migrate
from mltrading_marketdata.url import parse
from ops import ingestion
from ops.errors import Refused, StepFailed, Usage
from ops.shell import Result
from ops.targets.agent import Agent
from ops.targets.store import Store
from tests.ops import worlds

HEAD = "date,open,high,low,close,volume\n"
WORLD = worlds.world({"current": 1, "slots": {"1": "alive a"}})


class Host:
    """A target whose release is the data layer of this checkout, in this process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acts: list[tuple[str, str]] = []
        self.events: list[dict[str, Any]] = []
        self.brought: list[list[str]] = []
        self.breaks = ""

    def observe(self) -> Any:
        return WORLD

    def record(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing is open."""

    def act(
        self,
        host: str,
        verb: str,
        *,
        arguments: Any,
        folder: Path | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        self.acts.append((verb, arguments[0]))
        if arguments[0] == self.breaks:
            raise StepFailed("the connection was cut")
        words = [*arguments, *([str(folder)] if folder else [])]
        if folder:
            self.brought.append(sorted(path.name for path in folder.iterdir()))
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert main([*words, "--json"], {"DATABASE_URL": self.url}) == 0
        return json.loads(said.getvalue())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    url = f"sqlite:///{tmp_path / 'market.db'}"
    migrate(parse(url))
    found = Host(url)

    @contextlib.contextmanager
    def acting(*_: Any, **__: Any) -> Any:
        yield WORLD

    for module in ("ops.ingestion", "ops.database"):
        monkeypatch.setattr(f"{module}.acting", acting)
    monkeypatch.setattr("ops.ingestion.open_target", lambda _: found)
    monkeypatch.setattr("ops.ingestion.load", lambda _: worlds.ENVIRONMENT)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bars"
    folder.mkdir()
    for name in ("ACME", "OTHER"):
        rows = "2020-01-02,1,3,1,2,10\n2020-01-03,2,3,1,2,10\n"
        (folder / f"{name}.csv").write_text(HEAD + rows)
    return folder


def ingest(folder: Path, capsys: Any, **how: Any) -> dict[str, Any]:
    ingestion.ingest("local", source="csv", path=str(folder), as_json=True, **how)
    return json.loads(capsys.readouterr().out)


@pytest.mark.integration
def test_files_of_this_machine_reach_the_database_of_the_host(
    host: Host, folder: Path, capsys: Any
) -> None:
    said = ingest(folder, capsys)
    assert (said["inserted"], said["symbols"], said["state"]) == (4, 2, "done")
    assert host.acts == [("data", "begin"), ("carry", "merge")]
    assert host.brought == [["0.npz", "1.npz", "carry.json"]]
    assert [event["phase"] for event in host.events] == [
        *("begin", "intent", "done", "end")
    ]
    assert ingest(folder, capsys)["inserted"] == 0


@pytest.mark.integration
def test_a_dry_run_asks_the_source_and_writes_nothing(
    host: Host, folder: Path, capsys: Any
) -> None:
    said = ingest(folder, capsys, dry_run=True)
    assert (said["bars"], said["symbols"]) == (4, 2)
    assert host.acts == [("consult", "begin")] and host.events == []


@pytest.mark.integration
def test_what_was_brought_before_a_cut_is_not_asked_for_again(
    host: Host, folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.breaks = "merge"
    with pytest.raises(StepFailed, match="was cut"):
        ingest(folder, capsys)
    assert host.events[-1]["facts"]["outcome"] == "failed"
    host.breaks = ""
    said = ingest(folder, capsys)
    assert (said["inserted"], said["run"]) == (4, 1)


@pytest.mark.integration
def test_a_symbol_that_failed_is_exit_one_and_the_others_are_there(
    host: Host, folder: Path, capsys: Any
) -> None:
    with pytest.raises(StepFailed, match="1 of 2 symbols failed") as caught:
        ingest(folder, capsys, symbols="ACME,NOPE")
    assert "no NOPE.csv" in caught.value.detail
    assert json.loads(capsys.readouterr().out)["inserted"] == 2


@pytest.mark.integration
def test_rejects_are_listed_with_their_reason(
    host: Host, folder: Path, capsys: Any
) -> None:
    with (folder / "ACME.csv").open("a") as file:
        file.write("2020-01-06,9,1,1,9,1\n")
    assert ingest(folder, capsys)["rejected"] == 1
    ingestion.rejects("local", as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["total"] == 1 and said["rejects"][0]["reason"] == "OHLC order"
    ingestion.rejects("local", symbols="ACME")
    assert "OHLC order" in capsys.readouterr().out
    assert host.acts[-1] == ("consult", "rejects")


@pytest.mark.integration
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_bars_come_back_to_this_machine(
    host: Host, folder: Path, capsys: Any, tmp_path: Path, form: str
) -> None:
    ingest(folder, capsys)
    out = tmp_path / "out"
    ingestion.export("local", str(out), form=form, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["bars"], said["path"]) == (4, str(out))
    assert (out / f"ACME.{form}").exists() and (out / "symbols.csv").exists()
    assert host.acts[-1] == ("consult", "page")


@pytest.mark.integration
def test_words_that_the_data_layer_refuses_are_usage(host: Host) -> None:
    with pytest.raises(Usage, match="argument --interval: invalid choice: '2d'"):
        ingestion.ingest("local", interval="2d")
    with pytest.raises(Usage, match="'x' is no time"):
        ingestion.ingest("local", start="x")


@pytest.mark.integration
def test_a_key_that_is_missing_is_named_and_the_host_not_asked(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIINGO_API_KEY", raising=False)
    with pytest.raises(StepFailed, match="TIINGO_API_KEY is not set") as caught:
        ingestion.ingest("local", source="tiingo", symbols="ACME")
    assert "export TIINGO_API_KEY" in caught.value.next and host.acts == []


def test_a_key_is_in_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run(command: Any, **_: Any) -> Result:
        seen.append(command)
        return Result(1, "", "", 0.1)

    monkeypatch.setenv("TIINGO_API_KEY", "s3cret")
    monkeypatch.setattr("ops.ingestion.load", lambda _: worlds.ENVIRONMENT)
    monkeypatch.setattr("ops.shell.run", run)
    with pytest.raises(StepFailed):
        ingestion.ingest("local", source="tiingo", symbols="ACME")
    assert "s3cret" not in str(seen[0])


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"source": "bloomberg"}, "no source"),
        ({"source": "csv"}, "csv needs a folder"),
        ({"source": "parquet", "path": "/nowhere"}, "/nowhere is not a folder"),
    ],
)
def test_what_can_not_be_is_refused_before_anything(
    how: dict[str, str], what: str
) -> None:
    with pytest.raises(Usage, match=what):
        ingestion.ingest("local", **how)


def test_invented_bars_do_not_go_where_people_trade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prod = replace(worlds.ENVIRONMENT, name="prod", approval=True)
    monkeypatch.setattr("ops.ingestion.load", lambda _: prod)
    with pytest.raises(Refused, match="invented bars do not go to prod"):
        ingestion.ingest("prod", source="synthetic", symbols="DEMO")


@pytest.mark.parametrize(
    ("how", "what"), [({"form": "xls"}, "no format"), ({}, "no folder")]
)
def test_an_export_without_a_place_or_form_is_refused(
    how: dict[str, str], what: str
) -> None:
    with pytest.raises(Usage, match=what):
        ingestion.export("local", "", **how)


# On the host --------------------------------------------------------------------------


def tar(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out


def test_files_that_are_brought_are_gone_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.arrivals / "1").mkdir(parents=True)
    with store.incoming(tar(("carry.json", b"{}"), ("0.npz", b"x"))) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["0.npz", "carry.json"]
        assert folder.stat().st_mode & 0o77 == 0
        assert [path for path in store.arrivals.iterdir()] == [folder]
    assert not store.arrivals.exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../../x.json", tarfile.REGTYPE),
        ("/etc/cron.d/x", tarfile.REGTYPE),
        ("x.py", tarfile.REGTYPE),
        ("0.npz", tarfile.SYMTYPE),
        ("0.npz", tarfile.DIRTYPE),
    ],
)
def test_what_is_no_file_of_ours_is_not_taken(
    tmp_path: Path, name: str, kind: bytes
) -> None:
    store = Store(tmp_path / "root")
    with pytest.raises(StepFailed, match="was not to be sent"):
        with store.incoming(tar((name, b"x"), kind=kind)):
            pass
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "words", [["reset"], ["merge", "x"], ["begin", "--request", "{}"]]
)
def test_nothing_is_changed_without_the_lease(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(Refused, match="without the lease"):
        Agent(tmp_path).consult(1, words, 9.0)


@pytest.mark.integration
def test_a_program_may_talk_for_itself_while_we_read_what_it_says() -> None:
    program = (
        "import sys; from ops import shell; from ops.command import Command;"
        "said = shell.run(Command((sys.executable, '-c', "
        "'import sys; print(1); print(2, file=sys.stderr)')), talk=True);"
        "print(repr((said.out, said.err)))"
    )
    command = [os.sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("('1\\n', '')\n", "2\n")
