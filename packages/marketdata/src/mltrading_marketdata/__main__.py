"""The command line of the data layer: python -m mltrading_marketdata VERB.

DATABASE_URL comes from the environment, so that it shows in no list of processes. Talk
goes to stderr; with --json one object goes to stdout. Exit 0 done, 1 failed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import marker
from .errors import Protected, StoreError, Unavailable
from .revisions import Observed
from .url import Address, parse

if TYPE_CHECKING:
    import pandas as pd

    from .ledger import Request
    from .sources import Source
    from .store import Store

# Repeated here since the modules that know them import pandas; a test compares.
INTERVALS = ("1m", "5m", "1h", "1d")
KINDS = ("sample", "csv", "parquet", "yahoo", "tiingo", "synthetic")
FOLDERS = ("csv", "parquet")
WITHOUT_DATABASE = ("describe", "gather", "unpack")

Verb = Callable[["Call"], dict[str, Any]]


class Call:
    """What a verb gets: options, database, variables, and a way to talk."""

    def __init__(
        self,
        options: argparse.Namespace,
        address: Address | None,
        environ: Mapping[str, str],
    ) -> None:
        self.options = options
        self._address = address
        self.environ = environ
        # Whose we are.
        self.mark = marker.of(environ)

    @property
    def address(self) -> Address:
        """Return the database; asking for it in WITHOUT_DATABASE is a bug."""
        if self._address is None:
            raise TypeError(f"{self.options.verb} has no database")
        return self._address

    def say(self, text: str) -> None:
        """Write a line for a person."""
        print(text, file=sys.stderr)


def schema(call: Call) -> dict[str, Any]:
    """Show the schema of database and release, whose it is and what is set aside."""
    from . import trash
    from .preparation import schema as look

    found = look(call.address)
    there = None
    if found["kind"]:
        there = marker.Marker(found["environment"], found["kind"])
    found["guarded"] = marker.guarded(there, call.mark)
    found["trash"] = [one.as_json() for one in trash.listed(call.address)]
    of = f"of {found['environment']} ({found['kind']})" if found["kind"] else "unmarked"
    call.say(
        f"{call.address.where}: {of}, {found['state']}, at {found['current']}, "
        f"this release ships {found['head']}"
    )
    for one in found["trash"]:
        call.say(f"set aside: {one['name']}")
    return found


def migrate(call: Call) -> dict[str, Any]:
    """Apply the pending migrations, or print their SQL with --dry-run."""
    from . import revisions

    observed = revisions.observe(call.address)
    revisions.refuse_foreign(observed, call.address.where)
    marker.refuse_other(observed.marker, call.mark, call.address.where)
    pending = revisions.pending(observed)
    state = revisions.state_of(observed)
    if call.options.dry_run:
        return _shown(call, observed, pending, state)
    if not pending:
        call.say(f"{call.address.where}: nothing to do, {state} at {observed.current}")
        return {"applied": [], "pending": [], "state": state}
    from . import migration

    applied = migration.migrate(call.address)
    call.say(f"{call.address.where}: applied {', '.join(applied) or 'nothing'}")
    return {"applied": applied, "pending": [], "state": "current"}


def _shown(
    call: Call, observed: Observed, pending: list[str], state: str
) -> dict[str, Any]:
    """Show the SQL that is pending; of a database at our head how it drifted."""
    from . import migration

    text = migration.sql(call.address, observed)
    drift = migration.drift(call.address) if state == "current" else []
    call.say(text or f"{call.address.where}: nothing to do, {state}")
    for line in drift:
        call.say(f"drift: {line}")
    found = {"applied": [], "pending": pending, "state": state}
    return found | {"current": observed.current, "sql": text, "drift": drift}


def backup(call: Call) -> dict[str, Any]:
    """Write the whole database to one file, and prove it by restoring it."""
    from .backup import backup as write

    made = write(call.address, call.options.path)
    call.say(
        f"{call.address.where} -> {made.path} ({made.bytes} bytes, "
        f"{made.contents.rows} rows)"
    )
    return made.as_json()


def restore(call: Call) -> dict[str, Any]:
    """Put a backup in the place of the database, which is set aside."""
    from .backup import restore as put_back

    _refuse_unasked(call)
    done = put_back(
        call.address, call.options.path, mark=call.mark, within=call.options.within
    )
    call.say(
        f"{call.options.path} -> {call.address.where}, at {done['schema']}; "
        f"what was there: {done['aside'] or 'could not be kept'}"
    )
    return done


def prepare(call: Call) -> dict[str, Any]:
    """Back up, migrate and seed, as far as the database needs it.

    Refused first where the release could need more connections than are left.
    """
    from .budget import check, demand
    from .preparation import prepare as make_ready

    needed = demand(call.environ)
    if needed is not None and (fits := check(call.address, needed)):
        call.say(fits)
    done = make_ready(
        call.address,
        backup_dir=call.options.backup_dir,
        seed=call.options.seed,
        within=call.options.within,
        mark=call.mark,
    )
    call.say(
        f"{call.address.where}: {done['state']}, applied "
        f"{', '.join(done['applied']) or 'nothing'}, "
        f"backup {done['backup'] or 'none'}, "
        f"{done['ingested']} bars ingested"
    )
    return done


def ingest(call: Call) -> dict[str, Any]:
    """Read bars from a source into the store; goes on with a run that was cut off."""
    from . import carrying, progress
    from .ingestion import ingest as carry
    from .store import open_store

    options = call.options
    source = _source(call)
    asked = (options.symbols, options.interval, options.start, options.end)
    with open_store(call.address.sqlalchemy) as store:
        if options.dry_run:
            request = carrying.request_of(
                carrying.describe(source, *asked, options.full)
            )
            return _tried(call, store, source, request)
        report = carry(
            store,
            source,
            options.symbols,
            interval=options.interval,
            start=options.start,
            end=options.end,
            full=options.full,
            restart=options.restart,
            progress=progress.shown(call.say),
        )
    _say_report(call, report.as_json())
    return report.as_json()


def _tried(
    call: Call, store: Store, source: Source, request: Request
) -> dict[str, Any]:
    """Do all of an ingestion but the writing; say what would be asked and taken."""
    import tempfile

    from . import carrying, progress

    begun = carrying.begin(store, request, restart=call.options.restart, dry_run=True)
    state = {"request": request.as_json(), "run": 0, "wishes": begun["wishes"]}
    sums = {"bars": 0, "rejected": 0, "waiting": 0, "symbols": 0}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        while state["wishes"]:
            state = carrying.gather(
                source, state, Path(folder) / "carry", progress.shown(call.say)
            )
            sums = {name: sums[name] + state["gathered"][name] for name in sums}
            failed |= state["failed"]
    call.say(
        f"nothing was written: {sums['bars']:,} bars of {sums['symbols']} symbols, "
        f"{sums['rejected']:,} rejected, {sums['waiting']:,} not final yet"
    )
    for name, reason in failed.items():
        call.say(f"failed: {name}: {reason}")
    return {"dry_run": True, "resumed": begun["resumed"], "failed": failed} | sums


def describe(call: Call) -> dict[str, Any]:
    """Say what an ingestion asks of its source: the first step over two machines."""
    from . import carrying

    options = call.options
    asked = (options.symbols, options.interval, options.start, options.end)
    return carrying.describe(_source(call), *asked, options.full)


def begin(call: Call) -> dict[str, Any]:
    """Begin a described ingestion where the database is, or go on with it."""
    from . import carrying
    from .store import open_store

    options = call.options
    with open_store(call.address.sqlalchemy) as store:
        return carrying.begin(
            store,
            carrying.request_of(json.loads(options.request)),
            restart=options.restart,
            dry_run=options.dry_run,
        )


def gather(call: Call) -> dict[str, Any]:
    """Ask a source for the next bars of DIR/state.json, and put them in DIR/carry."""
    from . import carrying, progress

    options = call.options
    file = options.folder / "state.json"
    state = json.loads(file.read_text())
    after = carrying.gather(
        _source(call), state, options.folder / "carry", progress.shown(call.say)
    )
    file.write_text(json.dumps(after))
    return after["gathered"] | {"left": len(after["wishes"])}


def merge(call: Call) -> dict[str, Any]:
    """Merge the bars that were gathered in DIR."""
    from . import carrying
    from .store import open_store

    with open_store(call.address.sqlalchemy) as store:
        report = carrying.merge(store, call.options.folder)
    _say_report(call, report.as_json())
    # What a source could not say is no failure of the merging.
    said = report.as_json()
    return said | {"unanswered": said.pop("failed")}


def rejects(call: Call) -> dict[str, Any]:
    """List the rows that were refused, the newest bars first, with the reason."""
    from .ledger import Ledger
    from .store import open_store

    options = call.options
    with open_store(call.address.sqlalchemy) as store:
        total, rows = Ledger(store.access).rejects(
            options.symbols, options.interval, options.limit
        )
    for row in rows:
        row["ts"] = _iso(row["ts"])
        call.say(
            f"{row['symbol']:8} {row['interval']:3} {row['ts']}  {row['reason']}: "
            f"{row['row']} ({row['source']})"
        )
    call.say(f"{len(rows)} of {total} rejected rows")
    return {"total": total, "rejects": rows}


def runs(call: Call) -> dict[str, Any]:
    """List the newest ingestion runs with their counts."""
    from .ledger import Ledger
    from .store import open_store

    with open_store(call.address.sqlalchemy) as store:
        found = Ledger(store.access).runs(call.options.limit)
    for run in found:
        for name in ("began_at", "ended_at"):
            run[name] = _iso(run[name])
        call.say(
            f"{run['id']:5} {run['began_at']} {run['source']} {run['interval']}: "
            f"{run['state']}, {run['done']} of {run['symbols']} symbols, "
            f"{run['failed']} failed, {run['inserted']:,} inserted, "
            f"{run['updated']:,} updated, {run['rejected']:,} rejected"
            f"{', ' + run['message'] if run['message'] else ''}"
        )
    return {"runs": found}


def export(call: Call) -> dict[str, Any]:
    """Write bars as traded to a folder of CSV or Parquet files."""
    from . import progress
    from .export import export as write
    from .store import open_store

    options = call.options
    with open_store(call.address.sqlalchemy) as store:
        done = write(
            store,
            options.path,
            form=options.format,
            interval=options.interval,
            symbols=options.symbols,
            progress=progress.shown(call.say),
        )
    call.say(f"{done['bars']:,} bars in {done['files']} files -> {done['path']}")
    return done


def page(call: Call) -> dict[str, Any]:
    """Give one page of an export to a caller on another machine."""
    from .export import page as make
    from .store import open_store

    options = call.options
    symbol, _, ts = options.after.rpartition("@")
    with open_store(call.address.sqlalchemy) as store:
        return make(store, options.interval, options.symbols, (symbol, int(ts)))


def unpack(call: Call) -> dict[str, Any]:
    """Write the pages of an export in DIR to a folder of CSV or Parquet files."""
    from . import progress
    from .export import paged, write

    options = call.options
    pages = sorted(options.folder.glob("*.json"))
    first = json.loads(pages[0].read_text())
    done = write(
        options.path,
        paged(pages),
        first["about"],
        first["actions"],
        form=options.format,
        interval=options.interval,
        many=first["symbols"],
        progress=progress.shown(call.say),
    )
    call.say(f"{done['bars']:,} bars in {done['files']} files -> {done['path']}")
    return done


def _source(call: Call) -> Source:
    from .sources import open_source

    options = call.options
    return open_source(
        options.source,
        call.environ,
        path=options.path,
        seed=options.seed,
        wait_s=options.wait,
    )


def _say_report(call: Call, said: dict[str, Any]) -> None:
    counts = ("inserted", "updated", "unchanged", "rejected", "waiting")
    call.say(", ".join(f"{said[what]:,} {what}" for what in counts))
    for name, reason in said["failed"].items():
        call.say(f"failed: {name}: {reason}")
    if said["rejected"]:
        call.say("hint: list them: python -m mltrading_marketdata rejects")
    if said["stopped"]:
        call.say("hint: run the same command again: it goes on where it stopped")


def _iso(ts: int | None) -> str | None:
    from datetime import UTC, datetime, timedelta

    if ts is None:
        return None
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts)
    return at.isoformat()


def reset(call: Call) -> dict[str, Any]:
    """Put an empty database in the place of what is there, which is set aside."""
    from . import revisions, trash

    _refuse_unasked(call)
    revisions.refuse_foreign(revisions.observe(call.address), call.address.where)
    done = trash.reset(call.address, mark=call.mark)
    call.say(
        f"{call.address.where}: empty, at {done['schema']}; what was there: "
        f"{done['aside'] or 'nothing'}"
    )
    return done


def undo(call: Call) -> dict[str, Any]:
    """Take back what a reset or a restore has set aside."""
    from . import trash

    _refuse_unasked(call)
    options = call.options
    done = trash.undo(
        call.address, options.trash, mark=call.mark, within=options.within
    )
    call.say(
        f"{call.address.where}: {done['undone']} is back, at {done['schema']}; "
        f"what was there: {done['aside']}"
    )
    return done


def empty(call: Call) -> dict[str, Any]:
    """Remove for good what was set aside some days ago."""
    from datetime import timedelta

    from . import trash

    age = timedelta(days=call.options.older_than)
    removed = trash.empty(call.address, older_than=age)
    call.say(f"{call.address.where}: removed {', '.join(removed) or 'nothing'}")
    return {"removed": removed}


def mark(call: Call) -> dict[str, Any]:
    """Say whose the database is; of one that says so already --was must name it."""
    from . import revisions

    there = revisions.observe(call.address).marker
    new = marker.Marker(call.options.environment, call.options.kind)
    was = there.environment if there else ""
    if call.options.was != was:
        raise Protected(
            f"{call.address.where} says that it is of {there or 'nobody'}",
            f"to change that: --was {was or chr(39) * 2}",
        )
    marker.write(call.address, new, anew=True)
    call.say(f"{call.address.where}: of {new}, before of {there or 'nobody'}")
    return {"environment": new.environment, "kind": new.kind, "was": was}


def _refuse_unasked(call: Call) -> None:
    """Raise Protected where the database is not to be emptied or replaced lightly."""
    from . import revisions

    try:
        there = revisions.observe(call.address).marker
    except Unavailable:
        # Damaged, so it says nothing; who asks is known.
        there = None
    options = call.options
    marker.refuse_unasked(
        call.address, there, call.mark, force=options.force, name=options.name
    )


def info(call: Call) -> dict[str, Any]:
    """Show what the store holds."""
    from .store import open_store

    with open_store(call.address.sqlalchemy) as store:
        found = store.info()
    for key, value in found.items():
        call.say(f"{key:9} {', '.join(value) if isinstance(value, list) else value}")
    return found


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    root = argparse.ArgumentParser(
        prog="python -m mltrading_marketdata",
        description="Look after the market data in DATABASE_URL.",
    )
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(run: Verb) -> argparse.ArgumentParser:
        text = (run.__doc__ or "").partition("\n")[0]
        verb = verbs.add_parser(run.__name__, help=text, description=text)
        verb.add_argument("--json", action="store_true", help="one object to stdout")
        verb.set_defaults(run=run)
        return verb

    add(schema)
    add(migrate).add_argument("--dry-run", action="store_true", help="print the SQL")
    add(backup).add_argument("path", type=Path, help="the file to write")
    back = add(restore)
    back.add_argument("path", type=Path, help="the file to read")
    ready = add(prepare)
    ready.add_argument("--backup-dir", type=Path, help="where to back up to")
    ready.add_argument("--seed", choices=["sample"], help="fill an empty database")
    ready.add_argument(
        "--within", type=_range, help="0001-0099: revisions that others work on"
    )
    carry = _asking(add(ingest))
    carry.add_argument("--restart", action="store_true", help="begin a new run")
    carry.add_argument("--dry-run", action="store_true", help="all but the writing")
    _asking(add(describe))
    start = add(begin)
    start.add_argument("--request", required=True, help="what `describe` said")
    start.add_argument("--restart", action="store_true", help="begin a new run")
    start.add_argument("--dry-run", action="store_true", help="only say what is due")
    taken = _asking(add(gather))
    taken.add_argument("folder", type=Path, help="holds state.json")
    add(merge).add_argument("folder", type=Path, help="what was gathered")
    listed = _choosing(add(rejects), interval=None)
    listed.add_argument("--limit", type=int, default=100, help="at most so many")
    add(runs).add_argument("--limit", type=int, default=20, help="at most so many")
    written = _choosing(add(export))
    part = _choosing(add(page))
    part.add_argument("--after", default="@-1", help="SYMBOL@MICROSECONDS: go on there")
    put = _choosing(add(unpack))
    put.add_argument("folder", type=Path, help="holds the pages")
    for verb in (written, put):
        verb.add_argument("--format", choices=["csv", "parquet"], default="csv")
        verb.add_argument("--path", type=Path, required=True, help="folder to write")
    again = add(reset)
    revert = add(undo)
    revert.add_argument("--trash", default="", help="which one (default: the newest)")
    for verb in (back, again, revert):
        verb.add_argument("--force", action="store_true", help="also production")
        verb.add_argument("--name", default="", help="the database's name, for --force")
    for verb in (back, revert):
        verb.add_argument(
            "--within", type=_range, help="0001-0099: revisions that others work on"
        )
    add(empty).add_argument(
        "--older-than", type=float, default=7.0, metavar="DAYS", help="days (7)"
    )
    whose = add(mark)
    whose.add_argument("environment", help="such as staging")
    whose.add_argument("kind", choices=marker.KINDS)
    whose.add_argument("--was", default="", help="whose it said to be")
    add(info)
    return root


def _choosing(
    verb: argparse.ArgumentParser, interval: str | None = "1d"
) -> argparse.ArgumentParser:
    verb.add_argument("--symbols", type=_names, help="A,B (default: all)")
    verb.add_argument("--interval", choices=INTERVALS, default=interval)
    return verb


def _asking(verb: argparse.ArgumentParser) -> argparse.ArgumentParser:
    _choosing(verb)
    verb.add_argument("--source", choices=KINDS, required=True)
    verb.add_argument("--path", type=Path, help="the folder of csv or parquet files")
    verb.add_argument("--start", type=_moment, help="first time, such as 2020-01-31")
    verb.add_argument("--end", type=_last, help="last time; a date is all of it")
    verb.add_argument("--full", action="store_true", help="all, not only what is new")
    verb.add_argument("--seed", type=int, default=1, help="of synthetic bars")
    verb.add_argument(
        "--wait",
        type=float,
        default=120.0,
        help="seconds to wait for a provider that is busy or asks to wait, per symbol",
    )
    return verb


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as A,B")
    return names


def _moment(text: str) -> pd.Timestamp:
    import pandas as pd

    try:
        at = pd.Timestamp(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: {error}") from error
    return at.tz_localize("UTC") if at.tz is None else at.tz_convert("UTC")


def _last(text: str) -> pd.Timestamp:
    import pandas as pd

    at = _moment(text)
    whole_day = re.fullmatch(r"\d{4}-\d{2}-\d{2}", text)
    return at + pd.Timedelta(days=1) - pd.Timedelta(1, "us") if whole_day else at


def _range(text: str) -> tuple[str, str]:
    """Return the two revisions in "0001-0099"."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range such as 0001-0099")
    low, _, high = text.partition("-")
    return low, high


def main(argv: list[str], environ: Mapping[str, str]) -> int:
    """Run one verb and return the exit code."""
    root = parser()
    options = root.parse_args(argv)
    if getattr(options, "source", "") in FOLDERS and options.path is None:
        root.error(f"--source {options.source} needs --path DIR")
    url = environ.get("DATABASE_URL", "")
    if not url and options.verb not in WITHOUT_DATABASE:
        root.error("DATABASE_URL is not set; use sqlite:///path/file.db")
    tls = environ.get("DATABASE_SSL_REQUIRE", "").lower() in ("1", "true", "yes")
    try:
        address = parse(url, require_tls=tls) if url else None
        result = options.run(Call(options, address, environ))
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        if options.json:
            failure = {"kind": type(error).__name__, "error": str(error)}
            print(json.dumps(failure | {"hint": error.hint}))
        return 1
    if options.json:
        print(json.dumps(result))
    return 1 if result.get("failed") else 0


if __name__ == "__main__":
    import os

    sys.exit(main(sys.argv[1:], os.environ))
