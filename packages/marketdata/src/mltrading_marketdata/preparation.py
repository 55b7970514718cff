"""Make a database ready for this release: back up, migrate, seed. Quick when it is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import marker, revisions
from .errors import StoreError
from .marker import Marker
from .url import Address


def schema(address: Address) -> dict[str, Any]:
    """Return how the database stands to this release, and what it says of itself.

    That is head, current, pending, min_supported, max_supported and state; the name of
    the database, and the environment and kind that it is marked with, or None.
    """
    observed = revisions.observe(address)
    low, high = revisions.supported()
    mark = observed.marker
    return {
        "name": address.name,
        "environment": mark.environment if mark else None,
        "kind": mark.kind if mark else None,
        "head": revisions.shipped()[-1],
        "current": observed.current,
        "pending": revisions.pending(observed),
        "min_supported": low,
        "max_supported": high,
        "state": revisions.state_of(observed),
    }


def prepare(
    address: Address,
    *,
    backup_dir: Path | None = None,
    seed: str | None = None,
    within: tuple[str, str] | None = None,
    mark: Marker | None = None,
) -> dict[str, Any]:
    """Bring the database to this release's schema, then seed it if it has no series.

    A database that holds something is backed up to `backup_dir` before a migration,
    and the file is read to its end; it is not restored for proof, as a deploy would
    load a server that serves with it. A database that a newer release has migrated is
    left as it is (state "ahead"): its migrations are made so that this release can
    still read it. `within` are the revisions on which the releases work that may get
    traffic again; `mark` is what a database is marked with that has no marker.

    Raises StoreError; OutOfRange, and changes nothing, where a release could not work
    on the outcome; Protected where the database is marked as another environment's.
    """
    observed = revisions.observe(address)
    revisions.refuse_foreign(observed, address.where)
    marker.refuse_other(observed.marker, mark, address.where)
    revisions.refuse_out_of_range(observed, address.where, within)
    applied: list[str] = []
    saved: Path | None = None
    if revisions.pending(observed):
        from .backup import backup
        from .migration import migrate

        if backup_dir is not None and observed.tables:
            path = backup_dir / _backup_name(address, observed)
            saved = backup(address, path, prove=False).path
        applied = migrate(address)
    if mark is not None and observed.marker is None:
        marker.write(address, mark)
    ingested = 0
    if seed is not None and not observed.filled:
        ingested = _seed(address, seed)
    head = revisions.shipped()[-1]
    ahead = revisions.state_of(observed) == "ahead"
    return {
        "applied": applied,
        "backup": None if saved is None else str(saved),
        "ingested": ingested,
        "head": head,
        "schema": observed.current if ahead else head,
        "state": "ahead" if ahead else "current",
        "database": address.dialect,
    }


def _backup_name(address: Address, observed: revisions.Observed) -> str:
    ending = "sqlite3" if address.dialect == "sqlite" else "dump"
    return f"{observed.current}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{ending}"


def _seed(address: Address, seed: str) -> int:
    from .ingestion import ingest
    from .sources import SampleSource
    from .store import open_store

    if seed != "sample":
        raise StoreError(f"unknown seed {seed!r}", "the only one is: sample")
    with open_store(address.sqlalchemy) as store:
        store.set_meta("seeding", seed)
        report = ingest(store, SampleSource())
        if not report.failed:
            store.set_meta("seeding", "")
    if report.failed:
        raise StoreError(f"the sample could not be ingested: {report.failed}")
    return report.total("written")
