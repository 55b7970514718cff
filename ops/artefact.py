"""Build once: wheels, locked requirements and a manifest, named by their content.

`dist/<digest>` is written beside its place and renamed, so a killed build leaves
nothing that could be taken for an artefact; its manifest names every file that counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ops import errors, provenance, report
from ops.command import Command
from ops.environment import ROOT
from ops.release import Schema
from ops.shell import Result, run

SCHEMA = 1
PACKAGES = ("packages/health", "packages/marketdata", "services/dashboard")
SERVICE = "mltrading-dashboard"
# 2020-01-01: no file in a wheel is dated by the clock.
EPOCH = "1577836800"
BUILDERS = ("build", "hatchling", "packaging")
# Built packages are kept this long for the next build.
KEPT_DAYS = 7


@dataclass(frozen=True, slots=True)
class Artefact:
    """What one commit ships: `digest` is the sha256 of wheels and requirements.

    `path` is dist/<first 12 of digest>; `wheels` and `requirements` are files in it;
    `reused` says that nothing had to be built; `schema` is what its data layer states.
    """

    digest: str
    path: Path
    commit: str
    dirty: bool
    wheels: tuple[Path, ...]
    requirements: Path
    lock_digest: str
    python: str
    seconds: float
    reused: bool
    schema: Schema | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A file that belongs to an artefact and where it lies now."""

    name: str
    source: Path
    digest: str
    size: int

    @property
    def said(self) -> dict[str, Any]:
        """What the manifest says of the file."""
        return {"sha256": self.digest, "bytes": self.size}


def build(
    root: Path = ROOT, *, allow_dirty: bool = False, full: bool = True
) -> Artefact:
    """Build the artefact of the checkout and return it.

    Without `full` there are wheels and manifest only, which is what a deploy needs;
    with it also sdists, an SBOM, and a proof that the wheels install and import.

    Raises:
        Refused: no commit, or changes that are not committed.
        StepFailed: a package does not build, install or import.
    """
    begun = time.monotonic()
    commit, dirty = _state(root, allow_dirty)
    store = root / "dist" / ".packages"
    store.mkdir(parents=True, exist_ok=True)
    with _workers() as workers:
        pending = [
            workers.submit(_package, root, package, store, full) for package in PACKAGES
        ]
        exported, was_exported = _requirements(root, store)
        built = [future.result() for future in pending]
    folders = [folder for folder, _ in built]
    wheels = [_part(file) for folder in folders for file in folder.glob("*.whl")]
    requirements = _part(exported, "requirements.txt")
    digest = _digest(wheels, requirements)
    parts = [*wheels, requirements]
    if full:
        parts += [_part(file) for folder in folders for file in folder.glob("*.tar.gz")]
        parts.append(_bill_of_materials(root, store, digest))
    parts.sort(key=lambda part: part.name)
    _prune(store)
    path = root / "dist" / digest[:12]
    manifest = _manifest(root, path, parts, digest, commit, dirty)
    parts.append(_provenance(store, manifest))
    manifest["files"][provenance.NAME] = parts[-1].said
    _place(path, parts, manifest)
    artefact = Artefact(
        digest=digest,
        path=path,
        commit=commit,
        dirty=dirty,
        wheels=tuple(path / part.name for part in parts if part.name[-4:] == ".whl"),
        requirements=path / "requirements.txt",
        lock_digest=manifest["lock_sha256"],
        python=manifest["python"],
        seconds=0.0,
        reused=was_exported and all(reused for _, reused in built),
        schema=Schema(**manifest["schema"]) if manifest["schema"] else None,
    )
    if full and not manifest["proof"]:
        _write(path, {**manifest, "proof": _prove(root, artefact)})
    return replace(artefact, seconds=time.monotonic() - begun)


def verify(path: Path) -> dict[str, Any]:
    """Return the manifest of an artefact after reading every file it names.

    Raises:
        Refused: a file is missing or is not what the manifest says.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        files = manifest["files"]
    except (OSError, ValueError, KeyError) as error:
        raise errors.Refused(
            f"{path.name} is not an artefact: {error}", next="inv build"
        ) from None
    for name, said in files.items():
        file = path / name
        if not file.is_file() or _part(file).digest != said["sha256"]:
            raise errors.Refused(
                f"{name} is not the file that was built",
                where=str(path),
                next=f"rm -r {path} && inv build",
            )
    return manifest


def find(digest: str, root: Path = ROOT) -> Artefact:
    """Return an artefact that dist/ still has, after reading every file of it.

    Raises:
        Refused: it is not there, or is not what it was.
    """
    path = root / "dist" / digest[:12]
    if not path.is_dir():
        raise errors.Refused(
            f"artefact {digest[:12]} is not in dist/ any more",
            where=str(path),
            next="git checkout the commit it was built from, and inv build",
        )
    manifest = verify(path)
    wheels = tuple(path / name for name in manifest["files"] if name[-4:] == ".whl")
    requirements = path / "requirements.txt"
    found = _digest([_part(wheel) for wheel in wheels], _part(requirements))
    if not digest == found == manifest["digest"]:
        raise errors.Refused(
            f"dist/ has artefact {found[:12]} under the name {digest[:12]}",
            where=str(path),
            next=f"rm -r {path} && inv build",
        )
    schema = manifest.get("schema")
    return Artefact(
        digest=digest,
        path=path,
        commit=manifest["commit"],
        dirty=manifest["dirty"],
        wheels=wheels,
        requirements=requirements,
        lock_digest=manifest["lock_sha256"],
        python=manifest["python"],
        seconds=0.0,
        reused=True,
        schema=Schema(**schema) if schema else None,
    )


def refuse_dirty(root: Path = ROOT) -> None:
    """Refuse a checkout that holds changes that are not committed.

    Raises:
        Refused: it does, or is none.
    """
    _state(root, allow_dirty=False)


def export(root: Path) -> str:
    """Return the locked, hashed requirements of the service, without our packages."""
    result = _uv(root, "export", "--format", "requirements.txt", "--no-header")
    return result.out


def _uv(root: Path, *arguments: str) -> Result:
    result = run(
        Command(
            (
                *("uv", *arguments, "--quiet", "--frozen", "--offline", "--no-dev"),
                *("--package", SERVICE, "--no-emit-workspace"),
                *("--python", sys.executable),
            ),
            cwd=root,
        )
    )
    if not result.ok:
        raise errors.StepFailed(
            "the lock can't be exported", detail=result.tail(), next="inv lock"
        )
    return result


def _state(root: Path, allow_dirty: bool) -> tuple[str, bool]:
    """Return the commit and whether files differ from it; refuse what can't ship."""
    top = run(Command(("git", "rev-parse", "--show-toplevel", "HEAD"), cwd=root))
    lines = top.out.split()
    if not top.ok or Path(lines[0]).resolve() != root.resolve():
        inside = bool(lines) and Path(lines[0]).resolve() == root.resolve()
        raise errors.Refused(
            (
                "there is no commit yet: an artefact is built from one"
                if inside
                else "not a git checkout: an artefact is built from a commit"
            ),
            where=str(root),
            detail="" if inside else top.err.strip(),
            next="git commit" if inside else "git clone the project and build there",
        )
    status = run(Command(("git", "status", "--porcelain"), cwd=root))
    if not status.ok:
        raise errors.Refused("git status failed", detail=status.tail())
    changed = status.out.splitlines()
    if changed and not allow_dirty:
        shown = [line[3:] for line in changed[:10]]
        if len(changed) > 10:
            shown.append(f"and {len(changed) - 10} more")
        raise errors.Refused(
            f"{len(changed)} files are not committed",
            detail="\n".join(shown),
            next="git commit, or --allow-dirty for an artefact that is marked",
        )
    return lines[1], bool(changed)


@contextlib.contextmanager
def _workers() -> Iterator[Any]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(PACKAGES)) as pool:
        yield pool


def _package(root: Path, package: str, store: Path, full: bool) -> tuple[Path, bool]:
    """Return the folder with a package's wheel (and sdist), built where needed."""
    name = package.rpartition("/")[2]
    folder = store / f"{name}-{_content(root, package)}"
    wanted = ["--wheel"] * (not any(folder.glob("*.whl")))
    wanted += ["--sdist"] * (full and not any(folder.glob("*.tar.gz")))
    if wanted:
        with tempfile.TemporaryDirectory(dir=store) as scratch:
            build_package(root, package, Path(scratch), wanted)
            folder.mkdir(exist_ok=True)
            for file in Path(scratch).iterdir():
                file.replace(folder / file.name)
    os.utime(folder)
    return folder, not wanted


def build_package(
    root: Path,
    package: str,
    folder: Path,
    kinds: Sequence[str],
    python: str = sys.executable,
) -> None:
    """Build a package into a folder; `kinds` are --wheel, --sdist or both.

    Raises:
        StepFailed: it does not build.
    """
    result = run(
        Command(
            (
                *(python, "-m", "build", "--no-isolation", *kinds),
                *("--skip-dependency-check", "--outdir", str(folder), package),
            ),
            cwd=root,
            env={"SOURCE_DATE_EPOCH": EPOCH, "PYTHONDONTWRITEBYTECODE": None},
        )
    )
    if not result.ok:
        raise errors.StepFailed(f"{package} does not build", detail=result.tail())


def _content(root: Path, package: str) -> str:
    """Return the digest of everything that can change a package's wheel."""
    from ops.toolchain import installed

    versions = installed()
    total = hashlib.sha256(f"{SCHEMA} {EPOCH}".encode())
    for builder in BUILDERS:
        total.update(f"{builder} {versions.get(builder)}\n".encode())
    files = []
    for folder, folders, names in os.walk(root / package):
        folders[:] = [name for name in folders if name != "__pycache__"]
        files += [Path(folder, name) for name in names if not name.endswith(".pyc")]
    # The root's ignore rules decide which files hatchling packs.
    for file in [*sorted(files), root / ".gitignore"]:
        content = file.read_bytes() if file.is_file() else b""
        digest = hashlib.sha256(content).hexdigest()
        executable = bool(file.exists() and file.stat().st_mode & 0o100)
        total.update(f"{file.relative_to(root)} {executable} {digest}\n".encode())
    return total.hexdigest()[:16]


def _requirements(root: Path, store: Path) -> tuple[Path, bool]:
    """Return the exported requirements and whether they were there already."""
    total = hashlib.sha256((root / "uv.lock").read_bytes())
    for package in PACKAGES:
        total.update((root / package / "pyproject.toml").read_bytes())
    file = store / f"requirements-{total.hexdigest()[:16]}.txt"
    if file.exists():
        os.utime(file)
        return file, True
    _atomically(file, export(root))
    return file, False


def _prune(store: Path) -> None:
    """Remove kept packages that no build made or used lately."""
    oldest = time.time() - KEPT_DAYS * 86_400
    for entry in store.iterdir():
        if entry.stat().st_mtime < oldest:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)


def _bill_of_materials(root: Path, store: Path, digest: str) -> _Part:
    """Return a CycloneDX list of what ships; the same content, the same bytes."""
    file = store / f"sbom-{digest[:16]}.json"
    if not file.exists():
        features = ("--preview-features", "sbom-export")
        result = _uv(root, "export", "--format", "cyclonedx1.5", *features)
        document = json.loads(result.out)
        document["metadata"].pop("timestamp", None)
        serial = uuid.uuid5(uuid.NAMESPACE_URL, f"sha256:{digest}")
        document["serialNumber"] = f"urn:uuid:{serial}"
        for name in ("components", "dependencies"):
            document[name].sort(key=lambda item: json.dumps(item, sort_keys=True))
        _atomically(file, json.dumps(document, indent=2, sort_keys=True) + "\n")
    return _part(file, "sbom.cdx.json")


def _provenance(store: Path, manifest: Mapping[str, Any]) -> _Part:
    """Return the statement of where the files come from."""
    text = provenance.statement(manifest, os.environ)
    digest = hashlib.sha256(text.encode()).hexdigest()
    file = store / f"provenance-{digest[:16]}.json"
    if not file.exists():
        _atomically(file, text)
    return _part(file, provenance.NAME)


def _part(file: Path, name: str = "") -> _Part:
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return _Part(name or file.name, file, digest, len(content))


def _digest(wheels: Sequence[_Part], requirements: _Part) -> str:
    lines = sorted(f"{part.name} {part.digest}" for part in wheels)
    lines.append(f"{requirements.name} {requirements.digest}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _manifest(
    root: Path,
    path: Path,
    parts: Sequence[_Part],
    digest: str,
    commit: str,
    dirty: bool,
) -> dict[str, Any]:
    """Return the manifest; files and proof of an earlier full build stay in it."""
    from ops.toolchain import installed

    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads((path / "manifest.json").read_text())
    files = {
        name: said
        for name, said in before.get("files", {}).items()
        if (path / name).is_file()
    }
    files |= {part.name: part.said for part in parts}
    versions = installed()
    lock = hashlib.sha256((root / "uv.lock").read_bytes()).hexdigest()
    return {
        "schema_version": SCHEMA,
        "digest": digest,
        "commit": commit,
        "dirty": dirty,
        "lock_sha256": lock,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "versions": {
            part.name.split("-")[0]: part.name.split("-")[1]
            for part in parts
            if part.name.endswith(".whl")
        },
        "builders": {name: versions.get(name) for name in BUILDERS},
        "files": files,
        "schema": _schema([p.source for p in parts if p.name.endswith(".whl")]),
        "proof": before.get("proof"),
        "reproduced": before.get("reproduced"),
    }


def _schema(wheels: Sequence[Path]) -> dict[str, str] | None:
    """Return what the wheel with the migrations states, None where there is none."""
    import tomllib
    import zipfile

    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            stated = [name for name in names if name.endswith("migrations/schema.toml")]
            if not stated:
                continue
            said = tomllib.loads(archive.read(stated[0]).decode())
        found = (re.search(r"/migrations/versions/(\d{4})_\w+\.py$", n) for n in names)
        heads = sorted(match[1] for match in found if match)
        if heads:
            bounds = {key: str(said[key]) for key in ("min_supported", "max_supported")}
            return {"head": heads[-1], **bounds}
    return None


def _place(path: Path, parts: Sequence[_Part], manifest: Mapping[str, Any]) -> None:
    """Make dist/<digest> whole: by one rename where it is new."""
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as scratch:
            folder = Path(scratch, "artefact")
            folder.mkdir()
            for part in parts:
                shutil.copyfile(part.source, folder / part.name)
            _write(folder, manifest)
            with contextlib.suppress(FileExistsError):
                # Another build of the same content may have been first.
                _rename(folder, path)
                return
    for part in parts:
        file = path / part.name
        if not file.is_file() or _part(file).digest != part.digest:
            _atomically(file, part.source.read_bytes())
    _write(path, manifest)


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if target.exists():
            raise FileExistsError(target) from None
        raise


def _write(folder: Path, manifest: Mapping[str, Any]) -> None:
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    file = folder / "manifest.json"
    if not file.is_file() or file.read_text() != text:
        _atomically(file, text)


def _atomically(file: Path, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as scratch:
        scratch.write(data)
    Path(scratch.name).chmod(0o644)
    os.replace(scratch.name, file)


def _prove(root: Path, artefact: Artefact) -> dict[str, Any]:
    """Install the wheels in an empty environment and import each of them."""
    begun = time.monotonic()
    names = [wheel.name.split("-")[0] for wheel in artefact.wheels]
    with tempfile.TemporaryDirectory(dir=artefact.path.parent) as scratch:
        python = str(Path(scratch, "bin", "python"))
        pip = ("uv", "pip", "install", "--quiet", "--python", python)
        _must(("uv", "venv", "--quiet", "--python", sys.executable, scratch), root)
        locked = (*pip, "--require-hashes", "-r", str(artefact.requirements))
        if not run(Command((*locked, "--offline"), cwd=root)).ok:
            _must(locked, root)
        wheels = tuple(str(wheel) for wheel in artefact.wheels)
        _must((*pip, "--no-deps", "--offline", *wheels), root)
        for name in names:
            _must((python, "-I", "-c", f"import {name}"), Path(scratch))
    return {
        "imported": names,
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "seconds": round(time.monotonic() - begun, 2),
    }


def _must(argv: tuple[str, ...], cwd: Path) -> None:
    result = run(Command(argv, cwd=cwd, timeout=300))
    if not result.ok:
        raise errors.StepFailed(
            "the wheels do not prove themselves in an empty environment",
            where=" ".join(argv[:4]),
            detail=result.tail(12),
        )


def build_task(
    *,
    allow_dirty: bool = False,
    full: bool = True,
    again: bool = False,
    python: str = "",
    as_json: bool = False,
    root: Path = ROOT,
) -> Artefact:
    """Build and show the files, the folder and the seconds.

    `again` builds everything twice more, elsewhere, and compares; also by each of the
    comma-separated versions of `python`.
    """
    artefact = build(root, allow_dirty=allow_dirty, full=full)
    manifest = json.loads((artefact.path / "manifest.json").read_text())
    if again or python:
        from ops import pythons, reproduction

        names = [name.strip() for name in python.split(",") if name.strip()]
        others = [pythons.interpreter(name, root) for name in names]
        manifest["reproduced"] = reproduction.reproduce(artefact, root, others)
        _write(artefact.path, manifest)
    if as_json:
        extra = {"path": str(artefact.path.relative_to(root))}
        report.as_json({**manifest, **extra, "seconds": round(artefact.seconds, 3)})
        return artefact
    rows = [
        (name, f"{said['bytes'] / 1024:,.1f} KiB", said["sha256"][:12])
        for name, said in sorted(manifest["files"].items())
    ]
    report.say(report.table(rows, ("file", "size", "sha256"), right=(1,)))
    marked = " (with changes that are not committed)" if artefact.dirty else ""
    report.say(f"\nartefact {artefact.digest[:12]} of {artefact.commit[:12]}{marked}")
    if manifest["proof"]:
        report.say("installed in an empty environment and imported")
    if manifest["reproduced"]:
        said = manifest["reproduced"]
        pythons = ", ".join(said["pythons"])
        report.say(f"built {said['builds']} times more by {pythons}: the same bytes")
    state = "nothing changed" if artefact.reused else "built"
    report.say(f"{state} in {report.seconds(artefact.seconds)}")
    report.data(str(artefact.path.relative_to(root)))
    return artefact
