"""The dependency gate: four answers, and never a silent pass."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import io
import json
import shutil
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops import advisories, errors
from ops.advisories import CANARIES, Scan, absent, judge, parse
from ops.loopback import login_service

TODAY = datetime.date(2026, 11, 23)
SEEN = frozenset(name for name, _ in CANARIES)
CASES = json.loads((Path(__file__).parents[1] / "cases/advisories.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_judgement(case: dict) -> None:
    age = case.get("age")
    said = judge(
        Scan(
            case.get("read", 9),
            SEEN if case.get("canary", True) else frozenset(),
            tuple(case.get("findings", ())),
            case.get("error", ""),
        ),
        locked=case.get("locked", 9),
        date=None if age is None else TODAY - datetime.timedelta(days=age),
        today=TODAY,
        ci=case.get("ci", False),
        reason=case.get("reason", ""),
    )
    assert [said.result, said.state] == case["expected"]
    assert case.get("says", "") in said.findings


def test_an_allowance_is_recorded_with_date_and_age() -> None:
    date = TODAY - datetime.timedelta(days=30)
    said = judge(
        Scan(9, SEEN, ()), locked=9, date=date, today=TODAY, ci=True, reason="no net"
    )
    assert said.as_json() == {
        "result": "STALE",
        "database_date": "2026-10-24",
        "age_days": 30,
        "allowed_because": "no net",
        "locked": 9,
        "read": 9,
    }


@pytest.mark.parametrize(
    ("ci", "reason", "state"),
    [(False, "", "warned"), (True, "", "red"), (True, "no network", "warned")],
)
def test_nothing_to_ask_is_never_green(ci: bool, reason: str, state: str) -> None:
    said = absent("", locked=9, ci=ci, reason=reason)
    assert said.state == state
    assert said.findings.startswith("not checked: no advisory database; set MLTRADING")
    assert reason in said.findings
    assert advisories.ALLOW in advisories.fix(said)


def test_the_clients_answer_is_read_without_the_canaries() -> None:
    def item(name: str) -> dict:
        return {"package_name": name, "analyzed_version": "1", "vulnerability_id": "V"}

    packages = {"a": {"requirements": [1, 2]}, "django": {"requirements": [1]}}
    found = [item("django"), item("a")]
    text = json.dumps({"scanned_packages": packages, "vulnerabilities": found})
    assert parse(f"note\n{text}\nnote") == Scan(2, frozenset({"django"}), ("a 1: V",))


@pytest.mark.parametrize("text", ["", "Traceback", "{}", '{"scanned_packages": []}'])
def test_an_answer_that_cannot_be_read_is_an_error(text: str) -> None:
    assert "can't be read" in parse(text).error


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"meta": {"timestamp": "x"}}'])
def test_a_broken_database_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "uv.lock").write_text('[[package]]\nname = "a"\nversion = "1"\n')
    (tmp_path / "insecure.json").write_text(content)
    said = advisories.check(tmp_path, {advisories.DATABASE: str(tmp_path)}, TODAY)
    assert (said.result, said.state) == ("ERROR", "red")
    assert "insecure.json is not an advisory database" in said.findings


def test_a_named_database_that_is_missing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text('[[package]]\nname = "a"\nversion = "1"\n')
    said = advisories.check(tmp_path, {advisories.DATABASE: "/nowhere"}, TODAY)
    assert (said.result, said.state) == ("ERROR", "red")


def test_a_database_beside_the_checkout_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "advisories"
    folder.mkdir(parents=True)
    (folder / "insecure.json").write_text("{}")
    assert advisories.database(tmp_path / "checkout", {}) == folder
    assert advisories.database(folder, {}) is None


def test_a_locked_canary_is_an_error_not_a_pass() -> None:
    assert "canary" in advisories.scan((CANARIES[0],), None).error


def test_the_login_service_answers_what_the_client_asks() -> None:
    with login_service() as address:
        assert address.startswith("http://127.0.0.1:")
        url = f"{address}/.well-known/openid-configuration"
        with urllib.request.urlopen(url, timeout=5) as answer:
            keys = json.load(answer)["jwks_uri"]
        with urllib.request.urlopen(keys, timeout=5) as answer:
            assert json.load(answer) == {"keys": []}


def planted(folder: Path, *, bad: dict[str, list[str]]) -> Path:
    """Make an advisory database of today in the layout that the client reads."""
    folder.mkdir()
    meta = {
        "timestamp": int(datetime.datetime.now(datetime.UTC).timestamp()),
        "schema_version": "2.0.0",
        "base_domain": "https://example.org",
    }
    every = {name: {"insecure_versions": [], "secure_versions": []} for name in bad}
    full = {
        name: [
            {
                "specs": specs,
                "advisory": "planted",
                "ids": [{"type": "pyup", "id": "TEST-1"}],
                "vulnerable_versions": [],
                "more_info_path": "/",
                "fixed_in": [],
                "transitive": False,
            }
        ]
        for name, specs in bad.items()
    }
    for name, packages, extra in (
        ("insecure.json", bad, {}),
        ("insecure_full.json", full, {"packages": every}),
    ):
        document = {"meta": {**meta, **extra}, "vulnerable_packages": packages}
        (folder / name).write_text(json.dumps(document))
    return folder


CANARY_SPECS = {name: [f"<={version}"] for name, version in CANARIES}
PINS = (("alpha", "1.0"), ("beta", "2.0"), ("beta", "2.1"))


@pytest.mark.integration
def test_the_client_scans_offline_and_sees_the_canaries(tmp_path: Path) -> None:
    folder = planted(tmp_path / "db", bad=CANARY_SPECS)
    assert advisories.scan(PINS, folder) == Scan(3, SEEN, ())


@pytest.mark.integration
def test_the_client_reports_a_vulnerable_pin(tmp_path: Path) -> None:
    folder = planted(tmp_path / "db", bad={**CANARY_SPECS, "alpha": ["<2"]})
    assert advisories.scan(PINS, folder).findings == ("alpha 1.0: TEST-1",)


@pytest.mark.integration
def test_a_database_without_the_canaries_is_an_error(tmp_path: Path) -> None:
    folder = planted(tmp_path / "db", bad={"alpha": ["<1"]})
    lock(tmp_path)
    said = advisories.check(tmp_path, {advisories.DATABASE: str(folder)})
    assert (said.result, said.state) == ("ERROR", "red")
    assert "missed the known-bad django, pillow" in said.findings


def lock(folder: Path) -> Path:
    """Write a lock of three packages."""
    text = "".join(
        f'[[package]]\nname = "{name}"\nversion = "{version}"\n'
        'source = { registry = "r" }\n'
        for name, version in PINS
    )
    folder.mkdir(exist_ok=True)
    (folder / "uv.lock").write_text(text)
    return folder


def _missing(folder: Path) -> None:
    shutil.rmtree(folder)


def _half(folder: Path) -> None:
    (folder / "insecure_full.json").unlink()


def _empty(folder: Path) -> None:
    for name in advisories.FILES:
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**document, "vulnerable_packages": {}}))


def _old(folder: Path) -> None:
    for name in advisories.FILES:
        document = json.loads((folder / name).read_text())
        document["meta"]["timestamp"] = 1728518400
        (folder / name).write_text(json.dumps(document))


def _corrupt(folder: Path) -> None:
    file = folder / "insecure_full.json"
    file.write_text(file.read_text()[:-200])


def _other_layout(folder: Path) -> None:
    for name in advisories.FILES:
        document = json.loads((folder / name).read_text())
        document["meta"]["schema_version"] = "1.0.0"
        (folder / name).write_text(json.dumps(document))


def _one_canary(folder: Path) -> None:
    for name in advisories.FILES:
        document = json.loads((folder / name).read_text())
        del document["vulnerable_packages"][CANARIES[0][0]]
        (folder / name).write_text(json.dumps(document))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("damage", "result"),
    [
        (_missing, "ERROR"),
        (_half, "ERROR"),
        (_empty, "ERROR"),
        (_corrupt, "ERROR"),
        (_other_layout, "ERROR"),
        (_one_canary, "ERROR"),
        (_old, "STALE"),
    ],
    ids=lambda value: getattr(value, "__name__", value).strip("_"),
)
def test_no_damage_to_the_database_passes_silently_in_ci(
    tmp_path: Path, damage: Callable[[Path], None], result: str
) -> None:
    folder = planted(tmp_path / "db", bad=CANARY_SPECS)
    damage(folder)
    environ = {advisories.DATABASE: str(folder), "CI": "true"}
    said = advisories.check(lock(tmp_path / "here"), environ)
    assert (said.result, said.state) == (result, "red"), said.findings


@pytest.mark.integration
def test_a_login_service_that_died_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def dead() -> Iterator[str]:
        with login_service() as address:
            pass
        yield address

    monkeypatch.setattr("ops.loopback.login_service", dead)
    folder = planted(tmp_path / "db", bad=CANARY_SPECS)
    said = advisories.check(lock(tmp_path / "here"), {advisories.DATABASE: str(folder)})
    assert (said.result, said.state) == ("ERROR", "red")


@pytest.mark.integration
def test_no_network_and_no_database_is_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever needs the network asks a port at which nobody listens.
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    environ = {
        advisories.SOURCE: "http://127.0.0.1:9/all.zip",
        "MLTRADING_CACHE": str(tmp_path / "cache"),
    }
    said = advisories.check(lock(tmp_path / "here"), environ)
    assert (said.result, said.state) == ("ERROR", "warned")
    strict = advisories.check(lock(tmp_path / "here"), {**environ, "CI": "true"})
    assert strict.state == "red"


@contextlib.contextmanager
def published(*records: dict[str, Any], padding: int = 0) -> Iterator[str]:
    """Serve records the way they are published; yield their address."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        every = [*records, *(osv_record(f"pad{n}", "9") for n in range(padding))]
        for number, item in enumerate(every):
            file.writestr(f"{number}.json", json.dumps(item))

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(archive.getvalue())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/all.zip"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def osv_record(name: str, fixed: str) -> dict[str, Any]:
    span = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}
    return {
        "id": f"OSV-{name}",
        "modified": datetime.datetime.now(datetime.UTC).isoformat(),
        "affected": [
            {"package": {"ecosystem": "PyPI", "name": name}, "ranges": [span]}
        ],
    }


KNOWN_BAD = [osv_record(name, "99") for name, _ in CANARIES]


@pytest.mark.integration
def test_a_database_is_fetched_where_there_is_a_network(tmp_path: Path) -> None:
    environ = {"MLTRADING_CACHE": str(tmp_path / "cache")}
    bad = osv_record("alpha", "1.5")
    with published(*KNOWN_BAD, bad, padding=advisories.FEWEST) as address:
        said = advisories.check(
            lock(tmp_path / "here"), {**environ, advisories.SOURCE: address}
        )
    assert said.result == "VULNERABLE"
    assert said.findings == "alpha 1.0: OSV-alpha"
    assert said.age_days == 0


@pytest.mark.parametrize(
    "records", [[], [{"id": "x"}], KNOWN_BAD, [osv_record("alpha", "9")]]
)
def test_a_download_that_is_not_whole_replaces_nothing(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    environ = {"MLTRADING_CACHE": str(tmp_path)}
    planted(tmp_path / "advisories", bad=CANARY_SPECS)
    before = (tmp_path / "advisories/insecure.json").read_text()
    with published(*records) as address, pytest.raises(errors.StepFailed):
        advisories.refresh({**environ, advisories.SOURCE: address})
    assert (tmp_path / "advisories/insecure.json").read_text() == before


def test_the_newer_database_is_taken(tmp_path: Path) -> None:
    environ = {"MLTRADING_CACHE": str(tmp_path / "cache")}
    (tmp_path / "cache").mkdir()
    (tmp_path / "shared").mkdir()
    ours = planted(tmp_path / "cache" / "advisories", bad=CANARY_SPECS)
    beside = planted(tmp_path / "shared" / "advisories", bad=CANARY_SPECS)
    _old(beside)
    assert advisories.database(tmp_path / "here", environ) == ours
    _old(ours)
    shutil.rmtree(beside)
    planted(beside, bad=CANARY_SPECS)
    assert advisories.database(tmp_path / "here", environ) == beside
