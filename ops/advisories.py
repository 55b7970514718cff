"""The dependency gate: do the locked packages have known vulnerabilities?

It never passes silently. Each scan holds a known-bad canary that must be reported,
and must have read as many packages as are locked; an old database is said to be old.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ops import errors, folders, report
from ops.command import Command, Request
from ops.environment import ROOT
from ops.shell import run

FRESH_DAYS = 7
ALLOW = "MLTRADING_ALLOW_STALE_ADVISORIES"
DATABASE = "MLTRADING_ADVISORIES"
FILES = ("insecure.json", "insecure_full.json")
# Old releases that any advisory database knows to be bad, and that we never lock.
CANARIES = (("django", "1.11"), ("pillow", "5.0.0"))
# Where all records of Python packages are published, as one zip of JSON files.
SOURCE = "MLTRADING_ADVISORIES_URL"
OSV = "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip"
# A download with fewer packages than this is not the whole; the public one has more
# than ten times as many.
FEWEST = 500
_LARGEST = 256 * 1024 * 1024
NO_DATABASE = f"not checked: no advisory database; set {DATABASE}"


@dataclass(frozen=True, slots=True)
class Scan:
    """What the safety client said about a list of pins."""

    read: int
    canaries: frozenset[str]
    findings: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """PASS, VULNERABLE, STALE or ERROR, and what that means where we run.

    `state` is green, red or warned; `age_days` and `date` are the database's.
    """

    result: str
    state: str
    findings: str
    date: str = ""
    age_days: int | None = None
    allowed_because: str = ""
    locked: int = 0
    read: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the judgement as JSON values."""
        return {
            "result": self.result,
            "database_date": self.date,
            "age_days": self.age_days,
            "allowed_because": self.allowed_because,
            "locked": self.locked,
            "read": self.read,
        }


def locked(lock: Path) -> tuple[tuple[str, str], ...]:
    """Return (name, version) of every package of the lock that is not ours."""
    packages = tomllib.loads(lock.read_text())["package"]
    return tuple(
        (package["name"], package["version"])
        for package in packages
        if "registry" in package.get("source", {})
    )


def database(root: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the advisory database: the named one, else the newer of two.

    Those are the one that was fetched and shared/advisories beside the checkout.
    """
    if environ.get(DATABASE):
        return Path(environ[DATABASE])
    beside = root.parent / "shared" / "advisories"
    found = [f for f in (fetched(environ), beside) if (f / FILES[0]).is_file()]
    # Their dates are asked for only where there is a choice: a file is large.
    return max(found, key=_when) if len(found) > 1 else next(iter(found), None)


def fetched(environ: Mapping[str, str]) -> Path:
    """Return the folder of the database that `refresh` keeps."""
    return folders.cache(environ) / "advisories"


def _when(folder: Path) -> datetime.date:
    try:
        return dated(folder)
    except ValueError:
        return datetime.date.min


def refresh(environ: Mapping[str, str], *, timeout: float = 60.0) -> datetime.date:
    """Fetch the public records, keep them as a database, and return its day.

    The database that was there stays unless the new one is whole and knows the
    canaries.

    Raises:
        StepFailed: nothing was fetched, or not such records.
    """
    import tempfile
    import zipfile

    from ops import osv
    from ops.wire import ask

    source = environ.get(SOURCE) or OSV
    answer = ask(Request("GET", "", timeout=timeout), url=source, largest=_LARGEST)
    if answer.status != 200:
        raise errors.StepFailed(
            "the advisories can't be fetched",
            where=source,
            detail=answer.error or f"HTTP {answer.status}",
            next=f"{SOURCE}=URL, or {DATABASE}=FOLDER of a database you have",
        )
    try:
        documents = osv.convert(_records(answer.body))
        names = set(documents[0]["vulnerable_packages"])
        missed = {name for name, _ in CANARIES} - names
        if missed or len(names) < FEWEST:
            raise ValueError(f"only {len(names)} packages, without {missed or 'more'}")
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise errors.StepFailed(
            "what was fetched is not the advisories", where=source, detail=str(error)
        ) from None
    folder = fetched(environ)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fresh = Path(scratch, "advisories")
        fresh.mkdir()
        for name, document in zip(FILES, documents, strict=True):
            (fresh / name).write_text(json.dumps(document, sort_keys=True))
        if folder.exists():
            folder.rename(Path(scratch, "before"))
        fresh.rename(folder)
    return dated(folder)


def _records(body: bytes) -> Iterator[dict[str, Any]]:
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def _refreshed(
    folder: Path | None, environ: Mapping[str, str], today: datetime.date
) -> str:
    """Refresh a database that is not of today where that is possible.

    Returns why it was not; a named database is pinned and left alone.
    """
    if environ.get(DATABASE) or (folder is not None and _when(folder) >= today):
        return ""
    try:
        refresh(environ, timeout=20.0)
    except errors.StepFailed as error:
        return error.detail
    return ""


def dated(folder: Path) -> datetime.date:
    """Return the day of a database: `meta.timestamp`, seconds since 1970, UTC.

    Raises:
        ValueError: a file is missing, is not JSON or has no such day; says which.
    """
    days = []
    for name in FILES:
        try:
            meta = json.loads((folder / name).read_text())["meta"]
            moment = datetime.datetime.fromtimestamp(meta["timestamp"], datetime.UTC)
        except OSError as error:
            raise ValueError(f"{name} can't be read: {error.strerror}") from None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{name} is not an advisory database: {error}") from None
        days.append(moment.date())
    return min(days)


def judge(
    scan: Scan,
    *,
    locked: int,
    date: datetime.date | None,
    today: datetime.date,
    ci: bool,
    reason: str,
) -> Judgement:
    """Return what a scan means: pure, the rules of the gate are all here."""
    age = (today - date).days if date else None
    facts = {
        "date": str(date or ""),
        "age_days": age,
        "locked": locked,
        "read": scan.read,
    }

    def error(text: str) -> Judgement:
        return Judgement("ERROR", "red", text, **facts)

    if scan.error:
        return error(f"the scan failed: {scan.error}")
    missed = {name for name, _ in CANARIES} - scan.canaries
    if missed:
        return error(
            f"the scan missed the known-bad {', '.join(sorted(missed))}:"
            " its other answers can't be believed"
        )
    if not locked:
        return error("the lock names no package, so nothing was checked")
    if scan.read != locked:
        return error(f"{locked} packages are locked but {scan.read} were read")
    if age is not None and age < -1:
        return error(f"the database is dated {date}, which is in the future")
    if scan.findings:
        return Judgement("VULNERABLE", "red", "\n".join(scan.findings), **facts)
    counted = f"{locked} packages, no known vulnerability"
    if age is None:
        return Judgement("PASS", "green", f"{counted}, asked online", **facts)
    said = f"{counted} in the database of {date}, {age} days old"
    if age <= FRESH_DAYS:
        return Judgement("PASS", "green", said, **facts)
    return _stale(said, ci=ci, reason=reason, facts=facts)


def _stale(said: str, *, ci: bool, reason: str, facts: Mapping[str, Any]) -> Judgement:
    text = f"STALE: {said} (fresh: {FRESH_DAYS})"
    if reason:
        text += f"; allowed because: {reason}"
    return Judgement(
        "STALE",
        "warned" if reason or not ci else "red",
        text,
        allowed_because=reason,
        **facts,
    )


def absent(problem: str, *, locked: int, ci: bool, reason: str) -> Judgement:
    """Return what it means that there was nothing to ask."""
    text = NO_DATABASE + (f"; allowed because: {reason}" if reason else "")
    if problem:
        text += f"\n{problem}"
    return Judgement(
        "ERROR",
        "warned" if reason or not ci else "red",
        text,
        allowed_because=reason,
        locked=locked,
    )


def fix(judgement: Judgement) -> str:
    """Return what mends a judgement that is about the database or the scan."""
    newer = f"inv advisories, or set {DATABASE} to the folder of a newer database"
    if judgement.result == "STALE" or judgement.findings.startswith(NO_DATABASE):
        return f"{newer}, or {ALLOW}='reason'"
    return newer


def check(
    root: Path,
    environ: Mapping[str, str] = os.environ,
    today: datetime.date | None = None,
) -> Judgement:
    """Scan every locked package and return the judgement."""
    today = today or datetime.datetime.now(datetime.UTC).date()
    ci = environ.get("CI", "").lower() in ("1", "true")
    reason = environ.get(ALLOW, "").strip()
    pins = locked(root / "uv.lock")
    refused = _refreshed(database(root, environ), environ, today)
    folder = database(root, environ)
    if folder is None:
        answer = scan(pins, None)
        if answer.error:
            first = answer.error.splitlines()[-1]
            return absent(
                f"nor online: {first}", locked=len(pins), ci=ci, reason=reason
            )
        return judge(
            answer, locked=len(pins), date=None, today=today, ci=ci, reason=reason
        )
    try:
        date = dated(folder)
    except ValueError as error:
        return Judgement("ERROR", "red", f"{folder}: {error}", locked=len(pins))
    said = judge(
        scan(pins, folder),
        locked=len(pins),
        date=date,
        today=today,
        ci=ci,
        reason=reason,
    )
    if said.result == "STALE" and refused:
        text = f"{said.findings}\nno newer one could be fetched: {refused}"
        return replace(said, findings=text)
    return said


def scan(pins: tuple[tuple[str, str], ...], folder: Path | None) -> Scan:
    """Run the safety client on pins and the canaries, offline where a folder is."""
    import tempfile

    from ops.loopback import login_service

    names = {name for name, _ in pins}
    if names & {name for name, _ in CANARIES}:
        return Scan(0, frozenset(), (), "a canary is among the locked packages")
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch, "locked.txt")
        listing.write_text("".join(f"{n}=={v}\n" for n, v in (*pins, *CANARIES)))
        argv = [sys.executable, "-m", "safety", "check", "-r", str(listing)]
        argv += ["--output", "json"]
        # HOME: the client writes its own settings and cache there at every start.
        env: dict[str, str | None] = {
            "HOME": scratch,
            "PYTHONWARNINGS": "ignore",
            "PYTHONDONTWRITEBYTECODE": None,
        }
        if folder is None:
            result = run(Command(tuple(argv), env=env, timeout=60))
        else:
            argv += ["--db", str(folder.absolute())]
            env |= {"SAFETY_API_KEY": None, "NO_PROXY": "127.0.0.1"}
            with login_service() as address:
                env["SAFETY_AUTH_SERVER_URL"] = address
                result = run(Command(tuple(argv), env=env, timeout=120))
    # 64: vulnerabilities found, which the canaries make sure of; 0: none at all.
    if result.code not in (0, 64):
        return Scan(0, frozenset(), (), result.tail(6) or f"exit code {result.code}")
    return parse(result.out)


def parse(text: str) -> Scan:
    """Return what the client's JSON says; it prints notices around the document."""
    try:
        document = json.loads(text[text.index("{") : text.rindex("}") + 1])
        packages = document["scanned_packages"]
        found = document["vulnerabilities"]
        bad = {name for name, _ in CANARIES}
        read = sum(
            len(package["requirements"])
            for name, package in packages.items()
            if name not in bad
        )
        lines = tuple(
            f"{item['package_name']} {item['analyzed_version']}: "
            f"{item['vulnerability_id']} {item.get('CVE') or ''}".rstrip()
            for item in found
            if item["package_name"] not in bad
        )
        reported = frozenset(item["package_name"] for item in found) & bad
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Scan(0, frozenset(), (), f"its answer can't be read: {error!r}")
    return Scan(read, frozenset(reported), lines)


def show(
    *,
    fetch: bool = True,
    as_json: bool = False,
    root: Path = ROOT,
    environ: Mapping[str, str] = os.environ,
    today: datetime.date | None = None,
) -> None:
    """Fetch the advisory database, unless one is named, and say how old it is.

    Raises:
        StepFailed: nothing was fetched, or there is no database to speak of.
    """
    if fetch and not environ.get(DATABASE):
        refresh(environ)
    folder = database(root, environ)
    if folder is None:
        raise errors.StepFailed("there is no advisory database", next="inv advisories")
    try:
        date = dated(folder)
    except ValueError as error:
        raise errors.StepFailed(
            "the advisory database can't be read", where=str(folder), detail=str(error)
        ) from None
    age = ((today or datetime.datetime.now(datetime.UTC).date()) - date).days
    if as_json:
        said = {"folder": str(folder), "date": str(date), "age_days": age}
        report.as_json({"schema_version": 1, **said, "fresh": age <= FRESH_DAYS})
        return
    state = "ok" if age <= FRESH_DAYS else "warned"
    report.step(state, "advisories", f"of {date}, {age} days old, in {folder}")
