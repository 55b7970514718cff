"""Of three workers one watches; when it is killed nothing is lost or said twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.doubles import slack as doubles
from tests.health.watch.given import DOCUMENT, ERRORS

#: Seconds; as in production, only fifty times as fast.
INTERVAL, WINDOW, FOR = 0.1, 1.0, 0.2

MASTER = """
import json, os, sys, threading
from pathlib import Path
from mltrading_health import watch

folder = Path(sys.argv[1])
counts, mode = folder / "counts.json", folder / "mode"


def samples():
    with (folder / f"looks-{os.getpid()}").open("a") as file:
        file.write(".")
    said = json.loads(counts.read_text())
    series = {frozenset({("status", status)}): n for status, n in said.items()}
    return {"http_requests_total": series}


def count(said):
    said[mode.read_text()] += 100
    new = counts.with_suffix(".new")
    new.write_text(json.dumps(said))
    os.replace(new, counts)


said = {"2xx": 0, "5xx": 0}
count(said)
for _ in range(3):
    if os.fork() == 0:
        watch.start(
            samples, rules=folder / "alerts.json", environment="prod",
            service="dashboard", folder=folder,
        )
        parent = os.getppid()
        while os.getppid() == parent:
            threading.Event().wait(0.1)
        os._exit(0)
while True:
    count(said)
    threading.Event().wait(0.02)
"""


def wait_for(fact, seconds=20.0):
    """Poll a fact until it is true; fail after some seconds."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (found := fact()):
        assert time.monotonic() < deadline, "the fact did not come true in time"
        pause.wait(0.005)
    return found


class Workers:
    """Three workers that share a folder."""

    def __init__(self, folder, webhook):
        self.folder = folder
        rule = {**ERRORS, "window_s": WINDOW, "for_s": FOR, "min_per_s": 1}
        document = {**DOCUMENT, "interval_s": INTERVAL, "rules": [rule]}
        (folder / "alerts.json").write_text(json.dumps(document))
        self.serve("2xx")
        self.master = subprocess.Popen(
            [sys.executable, "-c", MASTER, str(folder)],
            env={**os.environ, "SLACK_WEBHOOK_URL": webhook},
        )

    def serve(self, status):
        """Answer all requests from now on with this status."""
        new = self.folder / "mode.new"
        new.write_text(status)
        os.replace(new, self.folder / "mode")

    def elected(self):
        """Return the pid of who watches."""
        try:
            return int((self.folder / "watch.lock").read_text())
        except (OSError, ValueError):
            return 0

    def looks(self, pid):
        path = self.folder / f"looks-{pid}"
        return path.stat().st_size if path.exists() else 0

    def settled(self):
        """Tell whether all that was to be said is said, and noted."""
        book = json.loads((self.folder / "watch.json").read_text())
        return not book["waiting"]

    def kill_the_elected(self):
        """Kill who watches; return who follows and the seconds until its first look."""
        victim = self.elected()
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        heir = wait_for(lambda: (pid := self.elected()) != victim and pid)
        wait_for(lambda: self.looks(heir))
        return heir, time.monotonic() - killed

    def stop(self):
        self.master.kill()
        self.master.wait(10)


@pytest.fixture
def slack():
    with doubles.serving() as slack:
        yield slack


@pytest.fixture
def workers(tmp_path, slack):
    workers = Workers(tmp_path, slack.url)
    try:
        yield workers
    finally:
        workers.stop()


def said(slack):
    return [message["text"].partition(" ")[0] for message in slack.messages]


@pytest.mark.integration
def test_one_of_three_watches_and_the_next_takes_over_without_a_word(workers, slack):
    watching = wait_for(workers.elected)
    wait_for(lambda: workers.looks(watching) > 3)
    assert len(list(workers.folder.glob("looks-*"))) == 1
    workers.serve("5xx")
    wait_for(lambda: said(slack) == ["CRITICAL"] and workers.settled())

    heir, seconds = workers.kill_the_elected()
    assert seconds < 5.0, "a third of the interval of production"
    # Long enough for a history without a gap: it knows by itself that it fires.
    wait_for(lambda: workers.looks(heir) > 1.5 * WINDOW / INTERVAL)
    assert said(slack) == ["CRITICAL"]

    last, _ = workers.kill_the_elected()
    workers.serve("2xx")
    wait_for(lambda: said(slack) == ["CRITICAL", "resolved"] and workers.settled())
    wait_for(lambda: workers.looks(last) > 1.5 * WINDOW / INTERVAL)
    assert said(slack) == ["CRITICAL", "resolved"]


@pytest.mark.integration
def test_a_message_that_waits_is_sent_by_the_next(workers, slack):
    watching = wait_for(workers.elected)
    slack.misbehave = ["silent"]
    workers.serve("5xx")
    wait_for(lambda: slack.asked)
    heir, _ = workers.kill_the_elected()
    assert heir != watching
    wait_for(lambda: said(slack) == ["CRITICAL"] and workers.settled())
    wait_for(lambda: workers.looks(heir) > 1.5 * WINDOW / INTERVAL)
    assert said(slack) == ["CRITICAL"]
