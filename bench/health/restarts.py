"""What a scrape costs before and after many restarts, and whether a count gets lost."""

from __future__ import annotations

import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.health.service import Gunicorn, wait_for
from bench.run import figure

WORKERS, RESTARTS, EACH = 4, 1000, 10
SCRAPES = 200
CLIENTS, RELOADS = 4, 5


def measure(runs: int = 0) -> dict[str, Any]:
    """Return the figures; `runs` is how many workers are restarted (1,000)."""
    with tempfile.TemporaryDirectory(prefix="mlt-health-") as name:
        service = Gunicorn(Path(name), WORKERS)
        try:
            wait_for(lambda: service.metrics.is_dir())
            service.wait_ready()
            return {"figures": figures(service, runs or RESTARTS)}
        finally:
            service.stop()


def figures(service: Gunicorn, restarts: int) -> list[dict[str, Any]]:
    """Scrape, restart and load a service; count what it counts."""
    sent = drive(service, EACH)
    files = len(list(service.metrics.glob("*.db")))
    before, read_before = scrape(service), read(service)
    for number in range(restarts):
        # A worker that is killed between the last byte of an answer and its count has
        # not counted it yet. What is counted must stay.
        if settled(service, "/work", sent) < sent:
            break
        # By turns: each slot is ended both ways.
        killed = (number // WORKERS) % 2
        service.restart_worker(number, signal.SIGKILL if killed else signal.SIGTERM)
        sent += drive(service, EACH)
    lost = sent - settled(service, "/work", sent)
    then = len(list(service.metrics.glob("*.db")))
    after, read_after = scrape(service), read(service)
    answered, cut = under_load(service)
    gone = answered - settled(service, "/load", answered)
    values = stored_values(service)
    half = f"{restarts} restarts, half by SIGKILL"
    what = f"scrape of {WORKERS} workers × {values} values"
    rows = [
        figure(what, before, "ms"),
        figure(f"{what}, p95", [p95(before)], "ms", 20.0),
        figure(f"the same after {half}", after, "ms"),
        figure(f"the same after {half}, p95", [p95(after)], "ms", 20.0),
        # Others on the machine don't add to these.
        figure("reading and writing it, processor time", read_before, "ms", 20.0),
        figure(f"the same after {half}", read_after, "ms", 20.0),
        figure(
            "median after to median before, processor time",
            [statistics.median(read_after) / statistics.median(read_before)],
            "×",
            1.25,
        ),
        figure("files of metrics before", [files], "files"),
        figure("files of metrics after", [then], "files", 4 * 2 * WORKERS),
        figure(f"counts lost of {sent}, {half}", [lost], "counts", 0),
        figure(f"counts lost of {answered} under load, {RELOADS} reloads", [gone],
               "counts", 0),
        # Each may be counted or not, and would hide one that is lost.
        figure("requests without an answer in them", [cut], "requests", 0),
    ]  # fmt: skip
    return rows + promtool(service)


def drive(service: Gunicorn, requests: int) -> int:
    """Send requests that must be answered; return how many were."""
    for _ in range(requests):
        status, _ = service.get("/work")
        if status != 200:
            raise SystemExit(f"a request was answered with {status}")
    return requests


def settled(service: Gunicorn, path: str, sent: int) -> int:
    """Return how many were counted: at once, or what there is after 10 s.

    An answer is counted when it has ended, a moment after its client has it.
    """
    deadline = time.monotonic() + 10
    while (counted := service.counted(path)) < sent and time.monotonic() < deadline:
        time.sleep(0.002)
    return min(counted, sent)


def scrape(service: Gunicorn) -> list[float]:
    """Return the ms of some scrapes through the socket, the first ones left out."""
    took = []
    for _ in range(SCRAPES + 20):
        begun = time.perf_counter()
        service.get("/metrics")
        took.append(1000 * (time.perf_counter() - begun))
    return took[20:]


def read(service: Gunicorn) -> list[float]:
    """Return ms of processor time to merge the files and write them as text."""
    from prometheus_client.exposition import generate_latest

    from mltrading_health.merge import merged

    class Merged:
        def collect(self) -> Any:
            return merged(service.metrics)

    took = []
    for _ in range(SCRAPES):
        begun = time.thread_time_ns()
        generate_latest(Merged())  # type: ignore[arg-type]
        took.append((time.thread_time_ns() - begun) / 1e6)
    return took


def p95(values: list[float]) -> float:
    """Return what 95 of 100 values do not exceed."""
    return sorted(values)[int(0.95 * len(values))]


def stored_values(service: Gunicorn) -> int:
    """Return how many values a worker keeps in its files."""
    from prometheus_client.mmap_dict import MmapedDict

    read = MmapedDict.read_all_values_from_file
    return sum(len(list(read(path))) for path in service.metrics.glob("*_0.db"))


def under_load(service: Gunicorn) -> tuple[int, int]:
    """Reload while clients ask; return how often they got an answer, and none."""
    over, answered, cut = threading.Event(), [0] * CLIENTS, [0] * CLIENTS

    def client(number: int) -> None:
        while not over.is_set():
            try:
                answered[number] += service.get("/load")[0] == 200
            except OSError:
                cut[number] += 1

    clients = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for _ in range(RELOADS):
        service.reload()
    over.set()
    for thread in clients:
        thread.join()
    return sum(answered), sum(cut)


def promtool(service: Gunicorn) -> list[dict[str, Any]]:
    """Return what `promtool check metrics` finds in the live output, if it is here."""
    tool = shutil.which("promtool")
    if tool is None:
        return []
    text = service.get("/metrics")[1]
    asked = subprocess.run(
        [tool, "check", "metrics"], input=text, capture_output=True, text=True
    )
    complaints = (asked.stdout + asked.stderr).splitlines()
    for complaint in complaints:
        print(complaint)
    found = max(len(complaints), int(asked.returncode != 0))
    return [figure("complaints of promtool check metrics", [found], "lines", 0)]
