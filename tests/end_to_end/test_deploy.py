"""Deploys, broken deploys and rollbacks, as a release engineer sees them."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench.load import Load, Request
from tests.end_to_end.conftest import Project

pytestmark = pytest.mark.e2e

RAISES = 'raise RuntimeError("planted: does not import")\n'
HANGS = "import threading  # noqa: E402\n\nthreading.Event().wait()\n"
ANSWERS_500 = '''application = server


def server(environ, start_response):
    """Answer every page with an error."""
    path = environ["PATH_INFO"]
    if path in ("/livez", "/readyz", "/version"):
        return application(environ, start_response)
    start_response("500 Internal Server Error", [("Content-Length", "0")])
    return [b""]
'''
NEVER_READY = '''application = server


def server(environ, start_response):
    """Answer nothing but that it is not ready."""
    start_response("503 Service Unavailable", [("Content-Length", "0")])
    return [b""]
'''
FAILS_A_PAGE = '''well = code


def code(view, data):
    """Fail for one page, which no gate asks for."""
    if view.symbol == "MSFT":
        raise RuntimeError("planted")
    return well(view, data)
'''
FAILS_IN_PUBLIC = '''application = server


def server(environ, start_response):
    """Answer well until traffic comes, then with errors."""
    public = os.path.samefile("../../current", ".")
    if public and environ["PATH_INFO"].startswith("/charts"):
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]
    return application(environ, start_response)
'''


def load(project: Project) -> Load:
    """Return a client that asks what browsers ask: pages and a POSTed callback."""
    url = project.status()["url"]
    with urllib.request.urlopen(f"{url}_dash-dependencies") as answer:
        callback = drawing(json.load(answer))
    posted = Request(
        "POST",
        "/_dash-update-component",
        callback,
        {"Content-Type": "application/json"},
    )
    requests = [Request("GET", "/"), Request("GET", "/charts/AAPL"), posted]
    return Load(
        url, keepalive_rps=40, keepalive_connections=8, new_rps=20, requests=requests
    )


def drawing(callbacks: list) -> bytes:
    from ops.command import Answer
    from ops.probe import callbacks as probes

    described = Answer(200, {}, json.dumps(callbacks).encode())
    (drawn,) = probes(described, ["/"])
    return drawn.request.body


def test_a_second_version_goes_out_and_back_under_load_without_a_failed_request(
    project: Project,
) -> None:
    project.change()
    client = load(project).start()
    try:
        second = project.deploy()
        back = project.inv("rollback")
    finally:
        found = client.stop()
    assert (second.returncode, back.returncode) == (0, 0), second.stderr + back.stderr
    assert found.failures == {}
    assert len(found.answers) > 100
    assert project.status()["current"] == "v1"


@pytest.mark.parametrize(
    ("planted", "code", "said"),
    [
        (RAISES, 1, "planted: does not import"),
        (HANGS, 1, "was not ready after"),
        (NEVER_READY, 4, "status 503"),
        (ANSWERS_500, 4, "status 500"),
        (FAILS_IN_PUBLIC, 4, "status 500"),
    ],
    ids=["raises on import", "hangs on boot", "not ready", "500", "500 in public"],
)
def test_a_broken_release_leaves_the_old_one_serving(
    project: Project, planted: str, code: int, said: str
) -> None:
    before = project.status()["current"]
    shorten_budgets(project)
    project.plant(planted)
    ended = project.deploy()
    project.mend()
    after = project.status()
    assert ended.returncode == code, ended.stderr
    assert (after["current"], after["healthy"]) == (before, True)
    assert said in ended.stderr
    assert after["runs"][-1]["outcome"] == (
        "reverted" if planted is FAILS_IN_PUBLIC else "aborted"
    )


def shorten_budgets(project: Project) -> None:
    path = project.folder / "ops" / "environments.toml"
    text = path.read_text().replace("boot = 30", "boot = 12")
    path.write_text(
        text.replace("gate = 15", "gate = 2").replace("smoke = 15", "smoke = 2")
    )


def test_a_release_that_does_worse_under_load_is_put_back(project: Project) -> None:
    before = project.status()
    path = project.folder / "ops" / "environments.toml"
    good = path.read_text()
    path.write_text(good.replace("watch = 0", "watch = 20"))
    project.plant(FAILS_A_PAGE, "routes.py")
    client = Load(
        before["url"],
        keepalive_rps=20,
        keepalive_connections=4,
        new_rps=10,
        requests=[Request("GET", "/"), Request("GET", "/charts/MSFT")],
    ).start()
    try:
        ended = project.deploy()
    finally:
        client.stop()
    path.write_text(good)
    project.mend("routes.py")
    assert ended.returncode == 4, ended.stderr
    assert "of answers are errors" in ended.stderr
    assert project.status()["current"] == before["current"]


def test_no_process_of_a_broken_release_is_left(project: Project) -> None:
    status = project.status()
    running = {status["current"], *status["standby"]}
    bad = {
        f"v{run['release']}"
        for run in status["runs"]
        if run["op"] == "deploy" and run["outcome"] != "good"
    }
    assert bad and not running & bad


def test_the_same_files_again_need_no_deploy(project: Project) -> None:
    project.change()
    first = project.deploy("--json")
    again = project.deploy("--json")
    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    release = json.loads(first.stdout)["release"]
    assert json.loads(again.stdout)["release"] == release
    assert json.loads(again.stdout)["steps"] == []


def test_a_dry_run_shows_the_plan_and_changes_nothing(project: Project) -> None:
    project.change()
    before = project.journal()
    ended = project.deploy("--dry-run", "--json")
    verbs = [step["verb"] for step in json.loads(ended.stdout)["steps"]]
    assert verbs[:5] == ["install", "stage", "migrate", "boot", "gate"]
    assert project.journal() == before


def test_changes_that_are_not_committed_mark_the_release(project: Project) -> None:
    path = project.folder / "services/dashboard/src/mltrading_dashboard/__init__.py"
    path.write_text(path.read_text() + "\n# Not committed.\n")
    assert project.deploy().returncode == 0
    assert project.status()["release"]["dirty"] is True
    project.commit()


def test_a_red_gate_stops_a_deploy_before_anything_is_touched(
    project: Project,
) -> None:
    path = project.folder / "services/dashboard/src/mltrading_dashboard/__init__.py"
    good = path.read_text()
    path.write_text(good + "\nimport os\n")
    before = project.journal()
    ended = project.deploy()
    path.write_text(good)
    assert ended.returncode == 1
    assert "F401" in ended.stderr and "nothing was touched" in ended.stderr
    assert project.journal() == before


def test_the_database_keeps_its_bars_over_releases(project: Project) -> None:
    with urllib.request.urlopen(f"{project.status()['url']}health") as answer:
        assert json.load(answer)["checks"]["database"] is True


def test_db_reset_backs_up_first_and_seeds_again(project: Project) -> None:
    refused = project.inv("db-reset")
    ended = project.inv("db-reset", "--yes")
    backups = list((project.local / "backups").glob("*.backup"))
    assert (refused.returncode, ended.returncode) == (1, 0), ended.stderr
    assert "nobody is here to confirm" in refused.stderr
    assert len(backups) == 1
    with sqlite3.connect(f"file:{backups[0]}?mode=ro", uri=True) as database:
        assert database.execute("select count(*) from series").fetchone()[0] > 0
    database.close()


def sees(project: Project, wanted: int) -> bool:
    """Ask what serves for a symbol's page until it has a status, for half a minute."""
    until = time.monotonic() + 30
    page = f"{project.status()['url']}charts/AAPL"
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(page) as answer:
                found = answer.status
        except urllib.error.HTTPError as error:
            found = error.code
            error.close()
        if found == wanted:
            return True
    return False


def test_what_serves_sees_a_reset_an_undo_and_a_restore(
    project: Project, tmp_path: Path
) -> None:
    """The workers hold the database open all the while, and none is renewed."""
    before = project.status()
    made = project.inv("db-backup", "--path", str(tmp_path / "copy"), "--json")
    assert made.returncode == 0 and json.loads(made.stdout)["proved"], made.stderr
    emptied = ("exec", "--command", "python -m mltrading_marketdata reset")
    for back in (
        ("db-reset", "--undo", "--yes"),
        ("db-restore", "--path", str(tmp_path / "copy"), "--yes"),
    ):
        assert sees(project, 200)
        assert project.inv(*emptied).returncode == 0
        assert sees(project, 404)
        ended = project.inv(*back)
        assert ended.returncode == 0, ended.stderr
        assert sees(project, 200)
    after = project.status()
    assert (after["healthy"], after["processes"]) == (True, before["processes"])
    ops = [event["op"] for event in project.journal() if event["phase"] == "end"]
    assert ops[-3:] == ["db-backup", "db-undo", "db-restore"]


def test_a_migration_has_nothing_to_do_after_a_deploy(project: Project) -> None:
    shown = project.inv("migrate", "--dry-run", "--json")
    said = json.loads(shown.stdout)
    assert (said["pending"], said["drift"], said["state"]) == ([], [], "current")
    ended = project.inv("migrate", "--json")
    assert json.loads(ended.stdout)["applied"] == []


def test_a_second_ingest_writes_nothing(project: Project) -> None:
    ended = project.inv("ingest", "--json")
    said = json.loads(ended.stdout)
    assert (ended.returncode, said["inserted"], said["updated"]) == (0, 0, 0)


def test_bars_from_files_and_invented_ones_go_in_and_out(
    project: Project, tmp_path: Path
) -> None:
    rows = "2020-01-02,1,3,1,2,10\n2020-01-03,9,1,1,9,1\n"
    (tmp_path / "ACME.csv").write_text("date,open,high,low,close,volume\n" + rows)
    ended = project.inv("ingest", "--source", "csv", "--path", str(tmp_path), "--json")
    said = json.loads(ended.stdout)
    assert (ended.returncode, said["inserted"], said["rejected"]) == (0, 1, 1)
    listed = project.inv("rejects", "--symbols", "ACME")
    assert "OHLC order" in listed.stdout
    words = ("--source", "synthetic", "--symbols", "DEMO", "--start", "2026-01-01")
    assert project.inv("ingest", *words).returncode == 0
    assert any("SYNTHETIC, seed 1" in text for text in project.status()["data"])
    out = tmp_path / "out"
    ended = project.inv("data-export", "--path", str(out), "--format", "parquet")
    assert ended.returncode == 0, ended.stderr
    assert {path.stem for path in out.glob("*.parquet")} >= {"ACME", "AAPL", "DEMO"}
    assert "SYNTHETIC" in (out / "symbols.csv").read_text()


def test_logs_show_what_the_release_wrote(project: Project) -> None:
    current = project.status()["current"]
    ended = project.inv("logs", "--release", current)
    assert f"{current} | " in ended.stdout
    assert "Listening at" in ended.stdout


def test_down_and_up_bring_the_same_release_back_on_the_same_port(
    project: Project,
) -> None:
    before = project.status()
    assert project.inv("down").returncode == 0
    stopped = project.inv("status")
    assert stopped.returncode == 1 and "the front door is closed" in stopped.stderr
    assert project.inv("up").returncode == 0
    after = project.status()
    assert (after["current"], after["url"]) == (before["current"], before["url"])


def test_a_port_of_another_program_is_refused_and_named(project: Project) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        project.inv("down")
        ended = project.inv("up", "--port", port)
    assert ended.returncode == 1
    assert f"port {port} is taken by process {os.getpid()}" in ended.stderr
    assert project.inv("up").returncode == 0


def test_a_corrupt_database_stops_a_deploy_with_a_clear_message(
    project: Project,
) -> None:
    path = project.local / "data" / "mltrading.db"
    project.inv("down")
    good = path.read_bytes()
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    path.write_bytes(b"this is no database" * 1000)
    project.change()
    ended = project.deploy()
    path.write_bytes(good)
    assert project.inv("up").returncode == 0
    assert ended.returncode == 1
    assert "mltrading.db" in ended.stderr
    assert "Traceback" not in ended.stderr
