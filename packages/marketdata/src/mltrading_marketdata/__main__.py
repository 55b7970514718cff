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
from typing import Any

from .errors import StoreError
from .url import Address, parse

Verb = Callable[["Call"], dict[str, Any]]


class Call:
    """What a verb gets: options, database, variables, and a way to talk."""

    def __init__(
        self,
        options: argparse.Namespace,
        address: Address,
        environ: Mapping[str, str],
    ) -> None:
        self.options = options
        self.address = address
        self.environ = environ

    def say(self, text: str) -> None:
        """Write a line for a person."""
        print(text, file=sys.stderr)


def schema(call: Call) -> dict[str, Any]:
    """Show the schema of the database and of this release."""
    from .preparation import schema as look

    found = look(call.address)
    call.say(
        f"{call.address.where}: {found['state']}, at {found['current']}, "
        f"this release ships {found['head']}"
    )
    return found


def migrate(call: Call) -> dict[str, Any]:
    """Apply the pending migrations, or print their SQL with --dry-run."""
    from . import revisions

    observed = revisions.observe(call.address)
    revisions.refuse_foreign(observed, call.address.where)
    pending = revisions.pending(observed)
    state = revisions.state_of(observed)
    if not pending:
        call.say(f"{call.address.where}: nothing to do, {state} at {observed.current}")
        return {"applied": [], "pending": [], "state": state}
    from . import migration

    if call.options.dry_run:
        text = migration.sql(call.address, observed)
        call.say(text)
        return {"applied": [], "pending": pending, "state": state, "sql": text}
    applied = migration.migrate(call.address)
    call.say(f"{call.address.where}: applied {', '.join(applied) or 'nothing'}")
    return {"applied": applied, "pending": [], "state": "current"}


def backup(call: Call) -> dict[str, Any]:
    """Write the whole database to one file."""
    from .backup import backup as write

    path = write(call.address, call.options.path)
    call.say(f"{call.address.where} -> {path} ({path.stat().st_size} bytes)")
    return {"backup": str(path), "bytes": path.stat().st_size}


def restore(call: Call) -> dict[str, Any]:
    """Replace the whole database by a backup."""
    from .backup import restore as put_back

    put_back(call.address, call.options.path)
    call.say(f"{call.options.path} -> {call.address.where}")
    return schema(call) | {"restored": str(call.options.path)}


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
    )
    call.say(
        f"{call.address.where}: {done['state']}, applied "
        f"{', '.join(done['applied']) or 'nothing'}, "
        f"backup {done['backup'] or 'none'}, "
        f"{done['ingested']} bars ingested"
    )
    return done


def ingest(call: Call) -> dict[str, Any]:
    """Read bars from a source into the store."""
    from . import sources
    from .ingestion import ingest as carry
    from .store import open_store

    options = call.options
    source: sources.Source = sources.SampleSource()
    if options.source == "csv":
        source = sources.CsvSource(options.path)
    with open_store(call.address.sqlalchemy) as store:
        report = carry(
            store,
            source,
            options.symbols,
            progress=lambda name, at, of: call.say(f"{at + 1}/{of} {name}"),
        )
    counts = ("inserted", "updated", "unchanged", "rejected")
    done = {what: report.total(what) for what in counts}
    call.say(", ".join(f"{value} {what}" for what, value in done.items()))
    for name, reason in report.failed.items():
        call.say(f"failed: {name}: {reason}")
    return done | {"source": report.source, "failed": report.failed}


def reset(call: Call) -> dict[str, Any]:
    """Drop everything and make an empty schema; take a backup first."""
    from . import revisions

    revisions.refuse_foreign(revisions.observe(call.address), call.address.where)
    from .migration import migrate as apply

    applied = apply(call.address, fresh=True)
    call.say(f"{call.address.where}: empty, at {applied[-1]}")
    return {"applied": applied, "database": call.address.dialect}


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
    add(restore).add_argument("path", type=Path, help="the file to read")
    ready = add(prepare)
    ready.add_argument("--backup-dir", type=Path, help="where to back up to")
    ready.add_argument("--seed", choices=["sample"], help="fill an empty database")
    ready.add_argument(
        "--within", type=_range, help="0001-0099: revisions that others work on"
    )
    carry = add(ingest)
    carry.add_argument("--source", choices=["sample", "csv"], required=True)
    carry.add_argument("--path", type=Path, help="the folder of the csv source")
    carry.add_argument(
        "--symbols", type=lambda text: text.split(","), help="A,B (default: all)"
    )
    add(reset)
    add(info)
    return root


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
    if options.verb == "ingest" and options.source == "csv" and options.path is None:
        root.error("--source csv needs --path DIR")
    url = environ.get("DATABASE_URL", "")
    if not url:
        root.error("DATABASE_URL is not set; use sqlite:///path/file.db")
    tls = environ.get("DATABASE_SSL_REQUIRE", "").lower() in ("1", "true", "yes")
    try:
        address = parse(url, require_tls=tls)
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
