"""Backups of an environment's database: made, listed, brought here, put back.

They lie on the host that made them, in the environment's folder `backups`; what is
known of one lies beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ops import report
from ops.database import (
    Act,
    file_name,
    journalled,
    looked,
    nothing_changed,
    show,
    sure_of,
    told,
    within,
)
from ops.delivery import load
from ops.environment import Environment
from ops.errors import Refused, StepFailed, Usage
from ops.targets import open_target
from ops.targets.agent import BACKUPS
from ops.targets.target import Target
from ops.world import World


def backup(
    name: str,
    *,
    path: str = "",
    listed: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Back the database up on its host, proved by restoring it; list what there is.

    With `path` the file is brought to this machine, too.

    Raises:
        Refused: nothing is deployed. Usage: `path` exists, or its folder does not.
    """
    environment = load(name)
    wanted = _place(path, file_name("db-backup")) if path else None
    with closing(open_target(environment)) as target:
        if listed:
            _list(target, target.observe(), as_json)
            return
        world, look = looked(target, environment)
        host = world.serving[0].name
        kept = file_name("db-backup")
        steps = [("backup", f"{host}: backups/{kept}, proved by restoring it")]
        if wanted:
            steps.append(("fetch", f"to {wanted} on this machine"))
        show("db-backup", environment, look, steps)
        if dry_run:
            nothing_changed("db-backup", environment, look, steps, as_json)
            return

        def work(act: Act) -> None:
            made = act("backup", ["backup", f"{BACKUPS}/{kept}"], host=host)
            if wanted:
                begun = time.monotonic()
                _fetch(target, host, kept, wanted, made.get("sha256", ""))
                report.step("ok", "fetch", str(wanted), time.monotonic() - begun)

        done = journalled(target, environment, "db-backup", work)
    brought = {"path": str(wanted)} if wanted else {}
    named = {"name": kept, "host": host, **brought}
    told("db-backup", environment, done | named, as_json)


def restore(
    name: str,
    *,
    backup: str = "",
    path: str = "",
    yes: bool = False,
    force: bool = False,
    database: str = "",
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Put a backup in the place of the database, which is backed up and set aside.

    `backup` is one that its host keeps, `path` a file of this machine.

    Raises:
        Refused: no such backup, nobody confirmed, or nothing is deployed.
        Usage: not exactly one of the two.
    """
    environment = load(name)
    if bool(backup) == bool(path):
        raise Usage(
            "which backup?",
            where="--backup, --path",
            allowed="--backup NAME of one that the host keeps, or --path of a file",
            next=f"inv db-backup --env {name} --list",
        )
    file = Path(path)
    if path and not file.is_file():
        raise Usage(f"{path} is no file", where="--path", allowed="a backup's file")
    with closing(open_target(environment)) as target:
        world, look = looked(target, environment)
        host, known = _where(target, world, backup) if backup else _sent(world, file)
        kept = backup or _arrival(file)
        before = file_name("db-restore")
        steps = [("send", f"{file} to {host}: backups/{kept}")] if path else []
        if not look.problem:
            text = f"{host}: backups/{before}, proved by restoring it"
            steps.append(("backup", text))
        steps.append(("restore", _about(kept, known)))
        show("db-restore", environment, look, steps)
        if dry_run:
            nothing_changed("db-restore", environment, look, steps, as_json)
            return
        words = f"db-restore --env {name} "
        words += f"--path {path}" if path else f"--backup {backup}"
        sure = sure_of(environment, look, words, yes, force, database)

        def work(act: Act) -> None:
            if path:
                note = _note_beside(file)
                sent = {"name": kept, "sha256": _sha256(file), "note": note}
                act("send", verb="keep", host=host, path=file, **sent)
            if not look.problem:
                act("backup", ["backup", f"{BACKUPS}/{before}"], host=host)
            asked = ["restore", f"{BACKUPS}/{kept}", *sure, *within(world)]
            if act("restore", asked, host=host).get("reopen"):
                # The file is another one now: who has the old one open sees no new.
                for each in world.hosts:
                    for slot in each.slots:
                        if slot.alive:
                            _renew(act, environment, each.name, slot.number)

        done = journalled(target, environment, "db-restore", work)
    told("db-restore", environment, done, as_json)


# Look -------------------------------------------------------------------------------


def _where(target: Target, world: World, name: str) -> tuple[str, Mapping[str, Any]]:
    """Return the host that keeps a backup, and what is known of it.

    Raises:
        Refused: none does that serves.
    """
    names: list[str] = []
    for host in world.serving:
        kept = target.act(host.name, "backups")
        found = kept if isinstance(kept, list) else []
        for one in found:
            if one["name"] == name:
                return host.name, one
            names.append(one["name"])
    raise Refused(
        f"there is no backup {name}",
        where=", ".join(host.name for host in world.serving),
        allowed=", ".join(names[:5]) or "none is there",
        next=f"inv db-backup --env {world.environment} --list",
    )


def _sent(world: World, file: Path) -> tuple[str, Mapping[str, Any]]:
    """Return where a file of this machine goes, and what is known of it."""
    note = _note_beside(file)
    try:
        known = json.loads(note) if note else {}
    except ValueError:
        known = {}
    return world.serving[0].name, known if isinstance(known, dict) else {}


def _about(name: str, known: Mapping[str, Any]) -> str:
    """Return a sentence about a backup."""
    if not known.get("sha256"):
        return f"{name}, of which nothing is known but what is in it"
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(known["at"])))
    of = str(known.get("marker") or "nobody").partition(" ")[0]
    return f"{name}: of {of}, {at}, {known['rows']:,} rows, schema {known['schema']}"


# Do and tell ------------------------------------------------------------------------


def _renew(act: Act, environment: Environment, host: str, number: int) -> None:
    budget = float(environment.budget.boot)
    act("renew", verb="reload", host=host, number=number, timeout=budget)


def _fetch(target: Target, host: str, name: str, path: Path, sha256: str) -> None:
    """Bring a backup to this machine, with what is known of it.

    The file appears whole or not at all.

    Raises:
        StepFailed: it did not arrive as it is there. Refused: it can't be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    digest, at = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            # All that the database holds: for nobody else to read.
            partial.chmod(0o600)
            while True:
                part = target.act(host, "read_backup", name=name, offset=at)
                chunk = bytes(part) if isinstance(part, bytes | bytearray) else b""
                if not chunk:
                    break
                digest.update(chunk)
                file.write(chunk)
                at += len(chunk)
        if digest.hexdigest() != sha256:
            raise StepFailed(
                f"{name} arrived with other contents than it has on {host}",
                where=str(path),
                next="the same command again",
            )
        note = target.act(host, "note_of", name=name)
        path.with_name(f"{path.name}.json").write_text(str(note))
        partial.replace(path)
    except OSError as error:
        raise Refused(
            f"{path} can't be written: {error.strerror}",
            where=str(error.filename or path),
            allowed="a path in a folder of yours, with free space",
            next=f"the backup stays on {host}: inv db-backup --list",
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _list(target: Target, world: World, as_json: bool) -> None:
    rows = []
    for host in world.reached:
        kept = target.act(host.name, "backups")
        rows += [{"host": host.name, **one} for one in (kept or ())]
    if as_json:
        report.as_json({"environment": world.environment, "backups": rows})
        return
    if not rows:
        report.say("  there is no backup")
        return
    table = [
        (
            str(row["name"]),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(float(row["at"]))),
            f"{row['bytes'] / 1e6:,.1f} MB",
            f"{row['rows']:,}" if row.get("sha256") else "",
            str(row.get("schema") or ""),
            "proved" if row.get("proved") else "read" if row.get("sha256") else "",
            str(row["host"]) if len(world.hosts) > 1 else "",
        )
        for row in rows
    ]
    head = ("backup", "taken", "size", "rows", "schema", "", "")
    report.data_table(table, head, right=(2, 3))


# Small parts ------------------------------------------------------------------------


def _place(path: str, name: str) -> Path:
    """Return the file to write on this machine.

    Raises:
        Usage: it exists, or its folder does not.
    """
    wanted = Path(path)
    if wanted.is_dir():
        wanted = wanted / name
    if wanted.exists() or not wanted.absolute().parent.is_dir():
        said = "exists" if wanted.exists() else "is in no folder that exists"
        raise Usage(
            f"{wanted} {said}", where="--path", allowed="a new file, or a folder"
        )
    return wanted.absolute()


def _arrival(file: Path) -> str:
    """Return the name under which a file of this machine is kept on a host."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", file.name.removesuffix(".json"))[-80:]
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{plain}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note_beside(path: Path) -> str:
    """Return what is known of a file of this machine; "" for nothing."""
    try:
        return path.with_name(f"{path.name}.json").read_text()
    except OSError:
        return ""
