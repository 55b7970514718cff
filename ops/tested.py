"""What a test file's verdict rests on, and whether it was said before.

First the sources that the file reaches by import; under these is kept what the tests
read when they last ran. With the content of all that, the verdict is found. A file
whose tests start programs that could read the checkout rests on the whole tree, but
for documents and other tests.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from ops import cache, graph, toolchain
from ops.cache import Store, Verdict
from ops.command import Command
from ops.reads import MADE
from ops.shell import run as shell_run
from ops.tree import Tree

SCHEMA = 1
# A verdict also rests on what nobody can list, such as the date: it is asked again.
BELIEVED_DAYS = 7
TEST = "test_*.py"
# Among the inputs of a verdict: a part of the machine, which is no file of ours.
SYSTEM = "system"
# What the runs of started programs do not depend on, beside other tests.
TOLD = ("*.md", "docs/*", ".github/*", "LICENSE")
NAMED = ("CI", "LANG", "LC_ALL", "TZ", "POSTGRES_BIN", "FORCE_COLOR", "NO_COLOR")
OUR_OWN = ("MLTRADING_CACHE", "MLTRADING_STATE")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every test file: by which Python, which of its tests.

    `python` is its version with the compiler's words, `packages` where its packages
    are, `marks` pytest's expression.
    """

    python: str
    packages: str
    marks: str = ""
    coverage: bool = False


@dataclass(frozen=True)
class Ground:
    """The checkout as the verdicts of its test files see it."""

    tree: Tree
    paths: frozenset[str]
    store: Store
    question: Question
    environ: Mapping[str, str]

    @classmethod
    def of(
        cls, root: Path, store: Store, question: Question, environ: Mapping[str, str]
    ) -> Ground | None:
        """Return the ground of a checkout; None where git can't list its files."""
        listing = ("git", "ls-files", "-z", "--cached", "--others")
        told = shell_run(Command((*listing, "--exclude-standard"), cwd=root))
        if not told.ok:
            return None
        tree = Tree(root)
        found = (name for name in told.out.split("\0") if name)
        paths = frozenset(path for path in found if tree.digest(path))
        return cls(tree, paths, store, question, environ)

    @cached_property
    def modules(self) -> dict[str, str]:
        """Dotted name to path of every module of ours."""
        return graph.modules(self.paths)

    @cached_property
    def _direct(self) -> dict[str, frozenset[str]]:
        return {}

    @cached_property
    def _closures(self) -> dict[str, frozenset[str]]:
        return {}

    def direct(self, path: str) -> frozenset[str]:
        """Return the modules that one names; read from the store where known there."""
        if path not in self._direct:
            key = cache.key(names_of=self.tree.digest(path), schema=SCHEMA)
            known = self.store.get(key)
            if known is None:
                found = graph.names((self.tree.root / path).read_bytes())
                known = Verdict("names", "green", findings="\n".join(found))
                self.store.put(key, known)
            names = known.findings.split("\n")
            self._direct[path] = graph.direct(path, self.modules, names)
        return self._direct[path]

    def closure(self, path: str) -> frozenset[str]:
        """Return the sources that a test file reaches, with its conftests."""
        if path not in self._closures:
            around = graph.around(path, self.paths)
            around += graph.around(path, self.paths, "__init__.py")
            self._closures[path] = graph.closure([path, *around], self.direct)
        return self._closures[path]

    # Keys ---------------------------------------------------------------------------

    @cached_property
    def common(self) -> dict[str, Any]:
        """What the verdicts of all files of one question rest on."""
        asked = self.question
        named = {
            name: value
            for name, value in self.environ.items()
            if name in NAMED or (name.startswith("MLTRADING_") and name not in OUR_OWN)
        }
        return {
            "schema": SCHEMA,
            "python": asked.python,
            "packages": _installed(asked.packages),
            "marks": asked.marks,
            "pytest": self.tree.config("pyproject.toml#tool.pytest"),
            "lock": self.tree.digest("uv.lock"),
            "environ": named,
            "root": os.geteuid() == 0,
            # A file that appears may be found in another's place, or be missed before.
            "names": [path for path in sorted(self.paths) if not _told(path)],
        }

    @cached_property
    def _common(self) -> str:
        return cache.key(**self.common)

    @cached_property
    def everything(self) -> list[list[str]]:
        """The content that started programs may depend on, and what runs them."""
        files = [[p, self.tree.digest(p)] for p in sorted(self.paths) if not _told(p)]
        return files + [[SYSTEM, name] for name in _system()]

    def whole(self) -> str:
        """Return the key of all test files' verdicts together."""
        files = [[path, self.tree.digest(path)] for path in sorted(self.paths)]
        asked = [self.question.coverage, list(_system())]
        return cache.key(common=self._common, files=files, asked=asked)

    def sources(self, path: str) -> list[list[str]]:
        """Return the sources under a test file with their digests."""
        return [[p, self.tree.digest(p)] for p in sorted(self.closure(path))]

    def first_key(self, path: str, sources: Sequence[Sequence[str]]) -> str:
        """Return the key of what a test file reads."""
        return cache.key(common=self._common, test=path, sources=sources)

    def content(self, manifest: Mapping[str, Any]) -> list[list[str]]:
        """Return what a manifest names, with digests of what is there now."""
        content = [[name, self._read(name)] for name in manifest["files"]]
        content += [[f"{name}/", self._listed(name)] for name in manifest["folders"]]
        return content + (self.everything if manifest["starts"] else [])

    def _read(self, name: str) -> str:
        return self.tree.digest(name)

    def _listed(self, name: str) -> str:
        try:
            found = os.listdir(self.tree.root / name)
        except OSError:
            return ""
        # A run of the tests makes such itself: the next one has nothing new to see.
        written = (n for n in found if n not in MADE and not n.startswith(".coverage"))
        return " ".join(sorted(written))

    # Verdicts -----------------------------------------------------------------------

    def known(self, path: str) -> tuple[Verdict | None, list[list[str]]]:
        """Return a test file's verdict, None when it must be asked, and its inputs."""
        sources = self.sources(path)
        first = self.first_key(path, sources)
        manifest = self.store.get(first)
        if manifest is None or manifest.data is None:
            return None, sources
        inputs = [*sources, *self.content(manifest.data)]
        verdict = self.store.get(cache.key(first=first, inputs=inputs))
        if verdict is None or verdict.data is None or verdict.state != "green":
            return None, inputs
        if not fresh(verdict) or (
            self.question.coverage and verdict.data["arcs"] is None
        ):
            return None, inputs
        return verdict, inputs

    def keep(self, path: str, reads: Mapping[str, Any], verdict: Verdict) -> list[str]:
        """Keep what a test file said and read.

        Returns the tests of it that failed before on the very same content.
        """
        sources = self.sources(path)
        first = self.first_key(path, sources)
        manifest = manifest_of(reads, {name for name, _ in sources})
        before = self.store.get(first)
        if before is not None and before.data:
            # What one run did not look at, another may.
            for name in ("files", "folders"):
                manifest[name] = sorted({*manifest[name], *before.data[name]})
            manifest["starts"] = manifest["starts"] or before.data["starts"]
        inputs = [*sources, *self.content(manifest)]
        key = cache.key(first=first, inputs=inputs)
        failed = self.store.get(cache.key(failed=key))
        data = {**(verdict.data or {}), "day": today()}
        rows = {first: Verdict("reads", "green", data=manifest)}
        rows[self._took(path)] = Verdict("took", "green", seconds=verdict.seconds)
        if verdict.state == "green":
            rows[key] = Verdict(
                verdict.name, "green", seconds=verdict.seconds, data=data
            )
            rows[self._last(path)] = Verdict("inputs", "green", data={"is": inputs})
        if verdict.state == "red" or failed:
            failing = {"failing": data["failing"]}
            rows[cache.key(failed=key)] = Verdict("failed", "red", data=failing)
        self.store.put_all(rows)
        return list((failed.data or {})["failing"]) if failed else []

    def times(
        self, paths: Sequence[str], recorded: Mapping[str, float]
    ) -> dict[str, float]:
        """Return the seconds that test files took last, here or as recorded."""
        found = {path: recorded[path] for path in paths if path in recorded}
        for path in paths:
            known = self.store.get(self._took(path))
            if known is not None:
                found[path] = known.seconds
        return found

    def speaks_of(self, path: str, words: Sequence[str]) -> bool:
        """Say whether a test file, or a test module that it uses, sets a marker."""
        for source in self.closure(path):
            if source.startswith("tests/") or source == path:
                text = (self.tree.root / source).read_text(errors="replace")
                if any(f"mark.{word}" in text for word in words):
                    return True
        return False

    def changed(self, path: str, inputs: Sequence[Sequence[str]]) -> list[str]:
        """Say what is other than when a test file last passed."""
        last = self.store.get(self._last(path))
        if last is None or not last.data:
            return ["it never passed here"]
        before, now = _files(last.data["is"]), _files(inputs)
        said = [f"{name} changed" for name in now if before.get(name, "") != now[name]]
        machine = [[n, v] for n, v in last.data["is"] if n == SYSTEM]
        if any(n == SYSTEM and [n, v] not in machine for n, v in inputs):
            said.append("the system's programs changed")
        # What only a run can tell is not among the inputs before it.
        gone = [name for name in before if name not in now]
        said += [
            f"{name} changed" if self.tree.digest(name) else f"{name} is gone"
            for name in gone
            if self.tree.digest(name) != before[name] and not name.endswith("/")
        ]
        return said or ["Python, packages, settings or the set of files changed"]

    def _took(self, path: str) -> str:
        return cache.key(took=path, marks=self.question.marks)

    def _last(self, path: str) -> str:
        return cache.key(last=path, marks=self.question.marks)


def _files(inputs: Iterable[Sequence[str]]) -> dict[str, str]:
    return {name: digest for name, digest in inputs if name != SYSTEM}


def manifest_of(reads: Mapping[str, Any], sources: set[str]) -> dict[str, Any]:
    """Return what a test file rests on beside its sources.

    `reads` holds what was read while it ran, and as "shared" what was read once for
    several files; of that counts what one of its sources asked for.
    """
    shared = reads["shared"]
    files = {name for _, name in reads["files"]}
    files |= {name for asker, name in shared["files"] if asker in sources}
    folders = {name for _, name in reads["folders"]}
    folders |= {name for asker, name in shared["folders"] if asker in sources}
    starts = bool(reads["starts"]) or any(a in sources for a in shared["starts"])
    return {
        "files": sorted(files - sources),
        "folders": sorted(folders),
        "starts": starts,
    }


def _told(path: str) -> bool:
    """Say whether a file is a document or a test: nothing that programs run on."""
    name = path.rpartition("/")[2]
    return fnmatchcase(name, TEST) or any(fnmatchcase(path, glob) for glob in TOLD)


def tests_of(paths: Iterable[str], folders: Sequence[str]) -> list[str]:
    """Return the test files among paths, in these folders (none: anywhere)."""
    inside = tuple(f"{folder.rstrip('/')}/" for folder in folders)
    return sorted(
        path
        for path in paths
        if fnmatchcase(path.rpartition("/")[2], TEST)
        and (not inside or path.startswith(inside))
    )


def _installed(packages: str) -> str:
    """Return a digest of which distributions are where a Python's packages are."""
    names = [f"{name} {version}" for name, version in toolchain.installed().items()]
    if packages:
        names = [name for name in os.listdir(packages) if name.endswith(".dist-info")]
    return cache.key(installed=sorted(names))


def _system() -> tuple[str, ...]:
    """Return the versions of the system's programs that tests start."""
    from ops import machine, pythons

    packages = sorted({part.package for part in machine.PARTS})
    found = [part.where() for part in machine.PARTS]
    # A program that no package brought is known by its size.
    sizes = [f"{path} {os.stat(path).st_size}" for path in found if path]
    listed = ""
    if shutil.which("dpkg-query"):
        shown = ("dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *packages)
        listed = shell_run(Command(shown)).out
    others = [pythons.near(name, os.environ) for name in pythons.VERSIONS]
    return (os.uname().release, *sizes, *others, *listed.splitlines())


def fresh(verdict: Verdict) -> bool:
    """Say whether a verdict is young enough to be believed."""
    return today() - int((verdict.data or {})["day"]) <= BELIEVED_DAYS


def today() -> int:
    """Return the number of today."""
    return int(time.time() // 86_400)


def python_of(executable: str) -> tuple[str, str]:
    """Return a Python's version and the folder of its packages ("" for our own)."""
    if executable == sys.executable:
        return sys.version, ""
    text = "import sys, sysconfig; print(sysconfig.get_path('purelib')); print("
    asked = shell_run(Command((executable, "-c", f"{text}sys.version)")))
    folder, _, version = asked.out.partition("\n")
    return version.strip(), folder
