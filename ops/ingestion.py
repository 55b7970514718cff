"""Bars into an environment's database, and out of it again.

A source is asked here, where its files, key and packages are; bars are merged, and
read, where the release runs. The data layer's own command line does both ends
(packages/marketdata, carrying.py and export.py); in between travel files.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ops import report, shell
from ops.command import Command
from ops.database import current, journalled
from ops.delivery import acting, load
from ops.environment import Environment
from ops.errors import Refused, StepFailed, Usage
from ops.targets import open_target
from ops.targets.target import Target

SOURCES = ("sample", "csv", "parquet", "yahoo", "tiingo", "synthetic")
FORMATS = ("csv", "parquet")
# Between two batches a deploy may have its turn: so long is it waited for, in seconds.
TURN = 900.0
# A request is one argument of a program; Linux allows 128 KiB.
_LONGEST = 120_000
# Beside what a provider is waited for: a batch is closed after a minute.
_BATCH = 3600.0
_ASK = 300.0


def ingest(
    name: str,
    *,
    source: str = "sample",
    path: str = "",
    symbols: str = "",
    interval: str = "1d",
    start: str = "",
    end: str = "",
    full: bool = False,
    restart: bool = False,
    seed: int = 1,
    wait: int = 120,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Read bars from a source into the database; the same bars again write nothing.

    Raises:
        Usage: there is no such source or folder. Refused: nothing is deployed, or the
        bars may not go there. StepFailed: a symbol failed, or the source stopped.
    """
    begun = time.monotonic()
    environment = load(name)
    _check(environment, source, path)
    asked = [*_asked(symbols, interval), "--source", source, "--seed", str(seed)]
    asked += ["--wait", str(wait)]
    asked += ["--path", str(Path(path).absolute())] if path else []
    for option, text in (("--start", start), ("--end", end)):
        asked += [option, text] if text else []
    asked += ["--full"] if full else []
    report.say(f"ingest {environment.name}", "bold")
    request = _here("describe", asked, _ASK)
    carrier = _Carrier(environment, request, asked, _BATCH + 10 * wait, dry_run)
    carrier.carry_all(restart)
    carrier.sums["seconds"] = round(time.monotonic() - begun, 3)
    if as_json:
        report.as_json(carrier.sums)
    carrier.judge(source)


def _check(environment: Environment, source: str, path: str) -> None:
    if source not in SOURCES:
        raise Usage(f'there is no source "{source}"', allowed=", ".join(SOURCES))
    if source in ("csv", "parquet") and not (path and Path(path).is_dir()):
        raise Usage(
            f"{path} is not a folder" if path else f"{source} needs a folder",
            where="--path",
            allowed=f"a folder of <SYMBOL>.{source} files",
        )
    if source == "synthetic" and environment.approval:
        raise Refused(
            f"invented bars do not go to {environment.name}",
            where="--source synthetic",
            allowed="an environment without approval, such as local or staging",
        )


def _asked(symbols: str, interval: str) -> list[str]:
    return ["--interval", interval, *(["--symbols", symbols] if symbols else [])]


class _Carrier:
    """One ingestion on its way: what is asked here is brought there, lot by lot."""

    def __init__(
        self,
        environment: Environment,
        request: dict[str, Any],
        asked: Sequence[str],
        limit: float,
        dry_run: bool,
    ) -> None:
        self.environment = environment
        self.request = request
        self.asked = asked
        self.limit = limit
        self.dry_run = dry_run
        counts = ("bars", "rejected", "waiting")
        counts = (
            counts if dry_run else ("inserted", "updated", "unchanged", *counts[1:])
        )
        self.sums: dict[str, Any] = {
            **dict.fromkeys((*counts, "symbols", "resumed"), 0),
            **{name: request[name] for name in ("source", "interval")},
            **{"run": 0, "state": "done", "stopped": "", "failed": {}},
        }

    def carry_all(self, restart: bool) -> None:
        """Begin a run or go on with one; gather and bring until nothing is left."""
        begun = self._begin(restart)
        self.sums |= {"run": begun["run"], "resumed": begun["resumed"]}
        with tempfile.TemporaryDirectory(prefix="mltrading-ingest-") as scratch:
            folder = Path(scratch)
            state = {"request": self.request, **begun}
            (folder / "state.json").write_text(json.dumps(state))
            while state["wishes"]:
                words = [scratch, *self.asked]
                self._add(_here("gather", words, self.limit, talk=True))
                state = json.loads((folder / "state.json").read_text())
                if not self.dry_run:
                    self._bring(folder / "carry")
                else:
                    self.sums["failed"] |= state["failed"]

    def _begin(self, restart: bool) -> dict[str, Any]:
        text = json.dumps(self.request)
        if len(text) > _LONGEST:
            raise Usage(
                f"{len(self.request['symbols'])} symbols are too many at once",
                where="--symbols",
                allowed="several thousand; give the others to a second command",
            )
        words = ["begin", "--request", text, *(["--restart"] if restart else [])]
        target = open_target(self.environment)
        if self.dry_run:
            with closing(target):
                return _consult(self.environment, target, [*words, "--dry-run"])
        with acting(target, self.environment, "ingest", 0.0, False) as world:
            number = current(world, self.environment)
            host = world.serving[0].name
            limit = float(self.environment.budget.migrate)
            return target.act(
                host, "data", number=number, arguments=words, timeout=limit
            )

    def _bring(self, folder: Path) -> None:
        def work(act: Callable[..., dict[str, Any]]) -> None:
            said = act("ingest", ["merge"], verb="carry", folder=folder)
            self._add(said)
            self.sums["failed"] |= said["unanswered"]
            self.sums |= {"state": said["state"], "stopped": said["stopped"]}

        target = open_target(self.environment)
        journalled(target, self.environment, "ingest", work, wait=TURN)

    def _add(self, said: dict[str, Any]) -> None:
        """Add counts to the sums: of what was gathered in a dry run, else merged."""
        gathered = "left" in said
        if gathered == self.dry_run:
            for name, value in self.sums.items():
                if isinstance(value, int) and name not in ("run", "resumed"):
                    self.sums[name] += said.get(name, 0)

    def judge(self, source: str) -> None:
        """Say how it went; raise StepFailed where not all went well."""
        again = f"inv ingest --env {self.environment.name} --source {source} ..."
        shown = ("bars", "inserted", "updated", "unchanged", "rejected", "waiting")
        parts = [f"{self.sums[what]:,} {what}" for what in shown if what in self.sums]
        report.say(f"  {', '.join(parts)}")
        if self.dry_run:
            report.say("  nothing was written (--dry-run)")
        elif self.sums["rejected"]:
            report.say(f"  inv rejects --env {self.environment.name} lists those rows")
        failed = self.sums["failed"]
        lines = [f"{name}: {reason}" for name, reason in failed.items()]
        if self.sums["stopped"]:
            raise StepFailed(
                f"the source stopped: {self.sums['stopped']}",
                next=f"the same command again, which goes on where it stopped: {again}",
            )
        if failed:
            many = len(self.request["symbols"])
            raise StepFailed(
                f"{len(failed)} of {many} symbols failed", detail="\n".join(lines[:20])
            )


def rejects(
    name: str,
    *,
    symbols: str = "",
    interval: str = "",
    limit: int = 100,
    as_json: bool = False,
) -> None:
    """Print the rows that ingestion refused, the newest bars first, with the reason."""
    environment = load(name)
    words = ["rejects", "--limit", str(limit)]
    words += ["--symbols", symbols] if symbols else []
    words += ["--interval", interval] if interval else []
    with closing(open_target(environment)) as target:
        said = _consult(environment, target, words)
    if as_json:
        report.as_json(said)
        return
    names = ("symbol", "interval", "ts", "reason", "row", "source")
    rows = [tuple(row[each] for each in names) for row in said["rejects"]]
    if rows:
        report.data_table(rows, names)
    report.say(f"  {len(rows)} of {said['total']} rejected rows")


def export(
    name: str,
    path: str,
    *,
    symbols: str = "",
    interval: str = "1d",
    form: str = "csv",
    as_json: bool = False,
) -> None:
    """Write bars as traded to a folder of this machine, which `inv ingest` reads."""
    if form not in FORMATS:
        raise Usage(f'there is no format "{form}"', allowed=", ".join(FORMATS))
    if not path:
        raise Usage("no folder was named", where="--path", allowed="a folder to write")
    environment = load(name)
    report.say(f"data-export {environment.name}", "bold")
    asked = _asked(symbols, interval)
    with tempfile.TemporaryDirectory(prefix="mltrading-export-") as scratch:
        folder = Path(scratch)
        with closing(open_target(environment)) as target:
            _fetch(environment, target, asked, folder)
        whole = str(Path(path).absolute())
        words = [scratch, *asked, "--format", form, "--path", whole]
        done = _here("unpack", words, _BATCH, talk=True)
    if as_json:
        report.as_json(done)


def _fetch(
    environment: Environment, target: Target, asked: Sequence[str], folder: Path
) -> None:
    """Put the pages of an export into a folder, one file each."""
    after, number = "@-1", 0
    while after:
        said = _consult(environment, target, ["page", *asked, "--after", after])
        (folder / f"{number:06}.json").write_text(json.dumps(said))
        number += 1
        following = said["next"]
        after = "@".join(map(str, following)) if following else ""


def _consult(
    environment: Environment, target: Target, words: Sequence[str]
) -> dict[str, Any]:
    """Ask the data layer of what serves something that changes nothing."""
    world = target.observe()
    return target.act(
        world.serving[0].name if world.serving else "",
        "consult",
        number=current(world, environment),
        arguments=words,
        timeout=float(environment.budget.migrate),
    )


def _here(
    verb: str, words: Sequence[str], limit: float, *, talk: bool = False
) -> dict[str, Any]:
    """Run the data layer of this checkout, and return what it says.

    Raises:
        Usage: it does not take these words. StepFailed: it could not do it.
    """
    command = (sys.executable, "-m", "mltrading_marketdata", verb, *words, "--json")
    # It has no use for a database here, whatever is exported.
    found = shell.run(
        Command(command, env={"DATABASE_URL": None}, timeout=limit), talk=talk
    )
    try:
        said = json.loads(found.out or "{}")
    except ValueError:
        said = {}
    if found.ok:
        return said
    last = found.tail(1)
    if found.code == 2:
        raise Usage(last.partition("error: ")[2] or last)
    raise StepFailed(
        said.get("error") or f"the data layer of this checkout could not {verb}",
        detail="" if said else found.tail(12),
        next=said.get("hint") or "uv sync, which installs what it needs here",
    )
