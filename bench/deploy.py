"""Deploys over SSH beside Capistrano, pyinfra and Ansible: the same host, the same run.

The hosts are throw-away ones of `tests/fleet`, so this needs root. Ours asks all gates,
installs, migrates, proves and smokes; the others unpack, link and restart.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench import load, peers
from bench.checkout import Checkout
from bench.delay import far
from bench.load import Load, Result
from bench.run import figure, timed
from bench.switch import requests, windows
from ops import report
from tests.fleet.machines import USER, Fleet, Host
from tests.postgres import postgres

JOURNAL = Path("home") / USER / "mltrading/staging/state/journal.jsonl"
PACKAGE = "packages/marketdata/pyproject.toml"
# A release's tree is linked from uv's cache: this one is in it, as a tool needs it.
ADDED = "packaging"
RPS = {"keepalive_rps": 200, "new_rps": 100}


def measure(runs: int) -> dict[str, Any]:
    """Measure `runs` rounds of each tool (5), and twice as many pairs under load."""
    rounds = runs or 5
    with (
        tempfile.TemporaryDirectory(prefix="mlt-") as name,
        Fleet(3) as fleet,
        postgres(fleet.gateway) as database,
    ):
        folder = Path(name)
        site = Site(folder, fleet, database)
        programs = peers.install(folder)
        _say("preparing three hosts and the first release")
        site.prepare()
        others = peers.prepare(fleet, site.one, folder, programs)
        taken = _beside(site, others, rounds)
        found, moves = _under_load(site, 2 * rounds)
        failed = {peer.name: _failures(site, peer) for peer in others}
        more = [*_fleet(site, rounds), *_far_away(site, rounds), *_reboot(site)]
        more += _new_lock(site)
    return {
        "requests": len(found.answers),
        "failures": found.failures,
        "peers": {
            name: {"requests": len(each.answers), "failures": each.failures}
            for name, each in failed.items()
        },
        "figures": [
            *_compared(taken),
            figure("failed requests", [found.failed], "requests", 0),
            figure("idle connections closed", [found.idle_closed], "connections"),
            *(
                figure(f"failed requests, a pair by {name}", [each.failed], "requests")
                for name, each in failed.items()
            ),
            figure(
                "rename to first answer of the new",
                [row[0] for row in moves],
                "s",
                0.05,
            ),
            figure(
                "rename to last request that got the old",
                [row[1] for row in moves],
                "s",
                0.05,
            ),
            *more,
        ],
    }


class Site:
    """A checkout, and the fleet that it is deployed to; `one` is used alone mostly."""

    def __init__(self, folder: Path, fleet: Fleet, database: str) -> None:
        self.checkout = Checkout(folder)
        self.checkout.unlimited()
        self.fleet = fleet
        self.one: Host = fleet.hosts[0]
        self.database = database

    def environ(self, *addresses: str, known: Path | None = None) -> dict[str, str]:
        """Return the environment of commands about these hosts, or about the first."""
        return {
            **self.checkout.environ(),
            "MLTRADING_STAGING_HOSTS": ",".join(
                f"{USER}@{each}" for each in addresses or (self.one.address,)
            ),
            "STAGING_URL": f"http://{self.one.address}",
            "DATABASE_URL_STAGING": self.database,
            "MLTRADING_KNOWN_HOSTS": str(known or self.fleet.known_hosts),
            "MLTRADING_SSH_KEY": str(self.fleet.key),
            # How old the advisories are is not what is measured.
            "MLTRADING_ALLOW_STALE_ADVISORIES": "a measurement",
        }

    def all(self) -> dict[str, str]:
        return self.environ(*(host.address for host in self.fleet.hosts))

    def prepare(self) -> None:
        """Set the hosts up and put a first and a second release on all of them."""
        from ops.hosts import host_setup

        key = f"{self.fleet.key}.pub"
        host_setup("staging", key=key, yes=True, environ=self.all())
        load.OURS.update(host.address for host in self.fleet.hosts)
        self.inv("deploy", environ=self.all())
        self.deploy(environ=self.all())

    def inv(self, *words: str, environ: dict[str, str] | None = None) -> float:
        """Return the seconds that a command about staging takes, as a user types it."""
        argv = self.checkout.inv(words[0], "--env", "staging", *words[1:])
        return timed(argv, cwd=self.checkout.root, environ=environ or self.environ())

    def deploy(self, environ: dict[str, str] | None = None) -> float:
        self.checkout.change()
        return self.inv("deploy", environ=environ)

    def rollback(self, environ: dict[str, str] | None = None) -> float:
        return self.inv("rollback", environ=environ)

    def pair(self) -> tuple[float, float]:
        return self.deploy(), self.rollback()

    def moves(self) -> list[tuple[float, str]]:
        """Return when traffic moved on the first host, and to which release."""
        found = []
        for line in (self.one.root / JOURNAL).read_text().splitlines():
            event = json.loads(line)
            if event.get("step") == "switch" and event["phase"] == "done":
                if event["host"] == self.one.address:
                    found.append((event["facts"]["moved"], f"v{event['release']}"))
        return found


def _beside(
    site: Site, others: list[peers.Peer], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Take turns: each round every tool deploys and goes back once."""
    _say(f"{rounds} rounds of each tool, one after the other")
    for peer in others:
        for _ in range(2):
            _run(peer, peer.deploy())
    taken: dict[str, list[tuple[float, float]]] = {"ours": []}
    for _ in range(rounds):
        taken["ours"].append(site.pair())
        for peer in others:
            pair = (_run(peer, peer.deploy()), _run(peer, peer.rollback()))
            taken.setdefault(peer.name, []).append(pair)
    return taken


def _compared(taken: dict[str, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    """Return the seconds of each tool, and ours as a share of the quickest other."""
    goals = {"deploy": 2.5, "rollback": 0.7}
    rows = []
    for place, act in enumerate(("deploy", "rollback")):
        times = {name: [pair[place] for pair in pairs] for name, pairs in taken.items()}
        for name, each in times.items():
            ours = name == "ours"
            what = f"{act}, one host" if ours else f"{act}, one host, by {name}"
            rows.append(figure(what, each, "s", goals[act] if ours else None))
        quickest = [
            min(each[turn] for name, each in times.items() if name != "ours")
            for turn in range(len(times["ours"]))
        ]
        shares = [a / b for a, b in zip(times["ours"], quickest, strict=True)]
        rows.append(figure(f"{act}, ours / the quickest other", shares, "times"))
    return rows


def _under_load(site: Site, pairs: int) -> tuple[Result, list[tuple[float, float]]]:
    _say(f"{pairs} deploys and rollbacks at 300 requests a second")
    url = f"http://{site.one.address}/"
    client = Load(url, requests=requests(url), **RPS).start()
    try:
        for _ in range(pairs):
            site.pair()
    finally:
        found = client.stop()
    return found, windows(found, site.moves())


def _failures(site: Site, peer: peers.Peer) -> Result:
    """Return what a load sees while a peer deploys and goes back once."""
    _say(f"a deploy and a rollback by {peer.name} at 300 requests a second")
    url = f"http://{site.one.address}:{peers.PORTS[peer.name]}/"
    client = Load(url, requests=requests(url), **RPS).start()
    try:
        _run(peer, peer.deploy())
        _run(peer, peer.rollback())
    finally:
        found = client.stop()
    return found


def _fleet(site: Site, rounds: int) -> list[dict[str, Any]]:
    """Compare three hosts with one, taking turns."""
    _say("three hosts and one")
    ratios: dict[str, list[float]] = {"deploy": [], "rollback": []}
    times: dict[str, list[float]] = {"deploy": [], "rollback": []}
    # All three stand at the same release first.
    site.deploy(site.all())
    for _ in range(rounds):
        for act, do in (("deploy", site.deploy), ("rollback", site.rollback)):
            several = do(site.all())
            times[act].append(several)
        alone = {"deploy": site.deploy(), "rollback": site.rollback()}
        for act, seconds in alone.items():
            ratios[act].append(times[act][-1] / seconds)
    rows = []
    for act in ("deploy", "rollback"):
        rows.append(figure(f"{act}, three hosts", times[act], "s"))
        rows.append(figure(f"{act}, three hosts / one", ratios[act], "times", 2))
    return rows


def _far_away(site: Site, rounds: int) -> list[dict[str, Any]]:
    """Measure rollbacks of a host whose answers take 50 ms longer."""
    _say("a host at a round trip of 50 ms")
    times = []
    with far(site.one.address, 22, 0.05) as port, tempfile.NamedTemporaryFile("w") as f:
        for line in site.fleet.known_hosts.read_text().splitlines():
            name, _, key = line.partition(" ")
            if name == site.one.address:
                f.write(f"[127.0.0.1]:{port} {key}\n")
        f.flush()
        environ = site.environ(f"127.0.0.1:{port}", known=Path(f.name))
        for _ in range(rounds):
            site.deploy()
            times.append(site.rollback(environ))
    return [figure("rollback, 50 ms round trip", times, "s", 1.5)]


def _reboot(site: Site) -> list[dict[str, Any]]:
    """Measure from power to the right release's first answer."""
    _say("power off and on")
    times = []
    for _ in range(3):
        wanted = _version(site.one)
        site.one.power_off()
        begun = time.monotonic()
        site.one.boot(wait=False)
        while _version(site.one) != wanted:
            if time.monotonic() - begun > 60:
                raise SystemExit(f"{wanted} does not serve after a reboot")
            time.sleep(0.02)
        times.append(time.monotonic() - begun)
        site.one.wait_ready()
    return [figure("power on to the right release's answer", times, "s", 5)]


def _new_lock(site: Site) -> list[dict[str, Any]]:
    """Measure a deploy whose dependencies changed; uv's cache has them all."""
    _say("a deploy with another lock")
    root = site.checkout.root
    file = root / PACKAGE
    text = file.read_text()
    file.write_text(
        text.replace("dependencies = [", f'dependencies = [\n    "{ADDED}",')
    )
    environ = {**site.environ(), "UV_OFFLINE": "1"}
    for words in (("lock",), ("quality",)):
        argv = site.checkout.inv(*words)
        timed(argv, cwd=root, environ=environ)
    git = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.org")
    subprocess.run([*git, "commit", "-qam", "feat: need more"], cwd=root, check=True)
    timed(site.checkout.inv("quality"), cwd=root, environ=environ)
    return [figure("deploy, new lock, one host", [site.inv("deploy")], "s", 8)]


def _version(host: Host) -> str:
    try:
        url = f"http://{host.address}/version"
        with urllib.request.urlopen(url, timeout=1) as said:
            return str(json.load(said)["release"])
    except (OSError, ValueError):
        return ""


def _run(peer: peers.Peer, argv: tuple[str, ...]) -> float:
    return timed(argv, cwd=peer.folder, environ=peer.environ())


def _say(text: str) -> None:
    report.say(f"  {text}")
