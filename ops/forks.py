"""A pytest plugin that runs test files side by side in forked workers.

pytest collects once, so pandas and dash are imported once; then workers are forked
and each takes one file after another. A file's tests stay in one worker, in order, and
at its end every fixture is torn down, so a file's result is its own. Heavy files, those
with end-to-end tests, have half of the workers at most: they have time budgets.

A test that failed is asked once more at the end, alone; passing then is reported as
flaky, with what it said the first time.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
from _pytest.junitxml import xml_key

from ops.reads import Reads

# Seconds that one test may take before its worker is ended.
LIMIT = 600
# More failures than this are no accident: none of them is asked again.
ASKED_AGAIN = 10
_NAME = 4096


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("forks")
    group.addoption("--forks", type=int, default=0, help="workers; 0 forks none")
    group.addoption("--forks-times", default="", help="JSON: seconds of each file")
    group.addoption("--forks-said", default="", help="where to write what files said")
    group.addoption("--forks-once", action="store_true", help="ask no test again")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.forks > 0 and not config.option.collectonly:
        config.pluginmanager.register(Forks(config), "forks-run")


@dataclass
class File:
    """The tests of one file, and what was said of them."""

    name: str
    items: list[pytest.Item]
    heavy: bool = False
    quiet: bool = False
    reports: list[pytest.TestReport] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    flaky: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """The node ids of tests that failed, each once."""
        return list(dict.fromkeys(r.nodeid for r in self.reports if r.failed))


def most_heavy(jobs: int, *, light: bool) -> int:
    """Return how many files of deploys may run at once.

    Their processes keep time, so they share the processors with half of the workers
    while `light` files run or wait, and with each other when only they are left.
    """
    return max(1, jobs // 2) if light else max(1, jobs - 1)


@dataclass
class Worker:
    """A forked process and the file it is at."""

    pid: int
    pipe: Connection
    now: mmap.mmap
    file: File | None = None
    heard: float = 0.0


class Forks:
    """Hands files to workers and passes what they say on to pytest."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.jobs = config.option.forks
        self.parent = os.getppid()
        self.stop = mmap.mmap(-1, 1)
        self.ended: list[File] = []
        self.reads = Reads(str(config.rootpath))
        self.reads.install()
        self.collected: dict[str, list[Any]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all that was collected; what pytest's own loop would do, side by side."""
        if session.testsfailed and not self.config.option.continue_on_collection_errors:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        self.collected = self.reads.take()
        # An end from outside tears fixtures down, as Ctrl-C does.
        signal.signal(signal.SIGTERM, _interrupt)
        files = self._files(session)
        workers: list[Worker] = []
        try:
            self._run(session, files, workers, self.jobs)
            self._again(session, workers)
        except BaseException:
            self.stop[0] = 1
            self._end(workers)
            raise
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        return True

    def _files(self, session: pytest.Session) -> list[File]:
        files: dict[str, File] = {}
        for item in session.items:
            name = item.nodeid.partition("::")[0]
            file = files.setdefault(name, File(name, []))
            file.items.append(item)
            file.heavy = file.heavy or item.get_closest_marker("e2e") is not None
        times: Mapping[str, float] = {}
        if self.config.option.forks_times:
            times = json.loads(Path(self.config.option.forks_times).read_text())
        # The longest first; what is not known is as long as it has tests, and a whole
        # deploy is longer than any of the others.
        return sorted(
            files.values(),
            key=lambda file: -times.get(
                file.name, (60 if file.heavy else 0) + 0.05 * len(file.items)
            ),
        )

    # Handing out --------------------------------------------------------------------

    def _run(
        self,
        session: pytest.Session,
        files: Sequence[File],
        workers: list[Worker],
        jobs: int,
    ) -> None:
        left = list(files)
        workers += [self._fork(session, files) for _ in range(min(jobs, len(left)))]
        for worker in workers:
            self._hand(worker, left, workers)
        while any(worker.file for worker in workers):
            for pipe in wait([w.pipe for w in workers if w.file], timeout=1):
                worker = next(w for w in workers if w.pipe is pipe)
                alive = self._hear(session, worker)
                if not alive:
                    os.waitpid(worker.pid, 0)
                    workers.remove(worker)
                    if left and not session.shouldfail:
                        workers.append(self._fork(session, files))
                if session.shouldfail:
                    self.stop[0] = 1
                    left.clear()
            for worker in workers:
                if worker.file is None:
                    self._hand(worker, left, workers)
                elif time.monotonic() - worker.heard > LIMIT:
                    os.kill(worker.pid, signal.SIGABRT)
            if os.getppid() != self.parent:
                raise KeyboardInterrupt
        for worker in workers:
            worker.pipe.send(None)
            os.waitpid(worker.pid, 0)
        workers.clear()

    def _hand(
        self, worker: Worker, left: list[File], workers: Sequence[Worker]
    ) -> None:
        """Give a worker the next file that may run now."""
        running = [w.file for w in workers if w.file is not None]
        light = any(not file.heavy for file in (*left, *running))
        full = sum(f.heavy for f in running) >= most_heavy(self.jobs, light=light)
        file = next((f for f in left if not (f.heavy and full)), None)
        if file is None:
            return
        left.remove(file)
        worker.file, worker.heard = file, time.monotonic()
        worker.pipe.send((file.name, [item.nodeid for item in file.items]))

    def _hear(self, session: pytest.Session, worker: Worker) -> bool:
        """Take one message of a worker; False when it is gone."""
        file = worker.file
        worker.heard = time.monotonic()
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            if file is not None:
                self._died(file, worker)
                self._whole(session, file)
            worker.file = None
            return False
        if kind == "report":
            report = self.config.hook.pytest_report_from_serializable(
                config=self.config, data=value
            )
            file.reports.append(report)
            if report.failed and session.config.option.maxfail:
                self._whole(session, file)
        elif kind == "done":
            file.facts = value
            worker.file = None
            self._whole(session, file)
        return True

    def _died(self, file: File, worker: Worker) -> None:
        """Report the test at which a worker died, and those it never came to."""
        said = {report.nodeid for report in file.reports if report.when == "teardown"}
        at = worker.now[:].rstrip(b"\0").decode(errors="replace")
        for item in file.items:
            if item.nodeid in said:
                continue
            text = "its worker died here" if item.nodeid == at else "its worker died"
            file.reports.append(
                pytest.TestReport(
                    nodeid=item.nodeid,
                    location=item.location,
                    keywords={},
                    outcome="failed",
                    longrepr=f"{item.nodeid}: {text}; it did not answer for {LIMIT} s "
                    "or was ended",
                    when="call",
                )
            )

    def _whole(self, session: pytest.Session, file: File) -> None:
        """Pass a file's reports on; failures wait until they were asked again."""
        if file.quiet:
            return
        once = self.config.option.forks_once or self.config.option.maxfail
        if file.failed and not once and file not in self.ended:
            self.ended.append(file)
            print(f"{file.name}: {len(file.failed)} failed", file=sys.stderr)
            return
        if file not in self.ended:
            self.ended.append(file)
        hook = self.config.hook
        for report in file.reports:
            if report.when == "setup" or len(file.reports) == 1:
                hook.pytest_runtest_logstart(
                    nodeid=report.nodeid, location=report.location
                )
            hook.pytest_runtest_logreport(report=report)
            if report.when == "teardown":
                hook.pytest_runtest_logfinish(
                    nodeid=report.nodeid, location=report.location
                )
        # Into a file or a pipe lines would else come in blocks.
        self.config.get_terminal_writer().flush()
        if self.config.option.maxfail:
            # With a limit they are passed on one by one, at once.
            file.reports.clear()

    def _again(self, session: pytest.Session, workers: list[Worker]) -> None:
        """Ask tests that failed once more, alone, and pass on what they say now."""
        if self.config.option.forks_once or self.config.option.maxfail:
            return
        red = [file for file in self.ended if file.failed]
        if not red:
            return
        total = sum(len(file.failed) for file in red)
        for file in red:
            failed = set(file.failed)
            if total <= ASKED_AGAIN:
                items = [item for item in file.items if item.nodeid in failed]
                again = File(file.name, items, quiet=True)
                self._run(session, [again], workers, 1)
                self._judge(file, again)
            self._whole(session, file)

    def _judge(self, file: File, again: File) -> None:
        for nodeid in file.failed:
            if nodeid in again.failed:
                continue
            first = next(r for r in file.reports if r.nodeid == nodeid and r.failed)
            said = str(first.longreprtext).strip().splitlines()
            file.flaky[nodeid] = said[-1][:300] if said else "failed"
            place = [r for r in file.reports if r.nodeid != nodeid]
            fresh = [r for r in again.reports if r.nodeid == nodeid]
            for report in fresh:
                report.user_properties.append(("flaky", file.flaky[nodeid]))
            file.reports = place + fresh

    def _end(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            _kill(worker.pid, signal.SIGINT)
        until = time.monotonic() + 20
        for worker in workers:
            while os.waitpid(worker.pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > until:
                    _kill(worker.pid, signal.SIGKILL)
                    os.waitpid(worker.pid, 0)
                    break
                wait([worker.pipe], timeout=0.1)

    # In a worker --------------------------------------------------------------------

    def _fork(self, session: pytest.Session, files: Sequence[File]) -> Worker:
        ours, theirs = Pipe()
        now = mmap.mmap(-1, _NAME)
        capture = self.config.pluginmanager.getplugin("capturemanager")
        base = self.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        capture.suspend_global_capture(in_=True)
        capture.read_global_capture()
        sys.stdout.flush()
        sys.stderr.flush()
        gc.freeze()
        with warnings.catch_warnings():
            # Libraries may hold threads that sleep; no lock of ours is held here.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            theirs.close()
            capture.resume_global_capture()
            return Worker(pid, ours, now)
        code = 1
        try:
            signal.signal(signal.SIGTERM, _interrupt)
            ours.close()
            folder = Path(base) / f"w{os.getpid()}"
            folder.mkdir(mode=0o700)
            self.config._tmp_path_factory._basetemp = folder  # type: ignore
            capture.stop_global_capturing()
            capture.start_global_capturing()
            self._work(session, files, theirs, now)
            code = 0
        except KeyboardInterrupt:
            code = 130
        finally:
            _save_coverage()
            os._exit(code)

    def _work(
        self,
        session: pytest.Session,
        files: Sequence[File],
        pipe: Connection,
        now: mmap.mmap,
    ) -> None:
        config = self.config
        for name in ("terminalreporter", "forks-run"):
            config.pluginmanager.unregister(name=name)
        junit = config.stash.get(xml_key, None)
        if junit is not None:
            config.pluginmanager.unregister(junit)
        config.pluginmanager.register(_Relay(config, pipe), "forks-relay")
        by_id = {item.nodeid: item for file in files for item in file.items}
        self.reads.take()
        for name, nodeids in _handed(pipe):
            _switch_coverage(name)
            begun, spent = time.monotonic(), time.process_time()
            items = [by_id[nodeid] for nodeid in nodeids]
            for item, following in zip(items, [*items[1:], None], strict=True):
                last = following is None or self.stop[0] or session.shouldfail
                now[:] = item.nodeid.encode()[:_NAME].ljust(_NAME, b"\0")
                item.ihook.pytest_runtest_protocol(
                    item=item, nextitem=None if last else following
                )
                if last:
                    break
            facts = {
                "seconds": round(time.monotonic() - begun, 3),
                "cpu": round(time.process_time() - spent, 3),
                "reads": self.reads.take(),
            }
            pipe.send(("done", facts))

    # At the end ---------------------------------------------------------------------

    def pytest_sessionfinish(self) -> None:
        """Write what each file said, and read, for whoever keeps verdicts."""
        if not self.config.option.forks_said:
            return
        told = {
            "collected": self.collected,
            "files": {
                file.name: {**file.facts, "flaky": file.flaky, "failed": file.failed}
                for file in self.ended
            },
        }
        Path(self.config.option.forks_said).write_text(json.dumps(told))

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        flaky = {n: said for file in self.ended for n, said in file.flaky.items()}
        if flaky:
            terminalreporter.section("flaky: failed, then passed alone")
            for nodeid, said in flaky.items():
                terminalreporter.line(f"{nodeid}: {said}")


class _Relay:
    """Sends what pytest reports in a worker to the process that collected."""

    def __init__(self, config: pytest.Config, pipe: Connection) -> None:
        self.config = config
        self.pipe = pipe

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(
            config=self.config, report=report
        )
        self.pipe.send(("report", data))


def _handed(pipe: Connection) -> Iterator[tuple[str, list[str]]]:
    """Yield the files that are handed to this worker, until there are no more."""
    while True:
        try:
            handed = pipe.recv()
        except EOFError:
            return
        if handed is None:
            return
        yield handed


def _switch_coverage(name: str) -> None:
    """Note from now on what is executed under the name of a test file."""
    module = sys.modules.get("coverage")
    measuring = module.Coverage.current() if module else None
    if measuring is not None:
        measuring.switch_context(name)


def _save_coverage() -> None:
    module = sys.modules.get("coverage")
    measuring = module.Coverage.current() if module else None
    if measuring is not None:
        measuring.stop()
        measuring.save()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
