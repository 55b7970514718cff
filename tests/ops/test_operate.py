"""Between deploys: restart, compare, set free, run a program; real processes."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ops import operate
from ops.command import Request, Secret
from ops.delivery import foretell
from ops.errors import Locked, Refused, Usage
from ops.hands import Hands, database_program
from ops.lease import Lease
from ops.operate import compare, plan_prune, plan_restart
from ops.plan import Plan, Step
from ops.targets.agent import Agent
from ops.targets.local import LocalTarget
from tests.ops import worlds

HOLD = (
    "import signal, sys; from pathlib import Path; from ops.lease import Lease\n"
    "if len(sys.argv) > 2: signal.signal(signal.SIGTERM, lambda *_: None)\n"
    "lease = Lease(Path(sys.argv[1]))\n"
    "lease.take('a deploy', 'bob@ci', tell=print)\n"
    "print('held', flush=True)\n"
    "while True: signal.pause()\n"
)


class Here(LocalTarget):
    """This machine, whose agent has hands."""

    def act(self, host: str, verb: str, **arguments: Any) -> dict[str, Any]:
        hands = Hands(self.agent)
        return getattr(hands if hasattr(hands, verb) else self.agent, verb)(**arguments)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setitem(os.environ, "MLTRADING_STATE", str(tmp_path))
    monkeypatch.setattr(operate, "open_target", Here)
    agent = Agent(tmp_path / "local")
    agent.prepare()
    return agent


def staged(agent: Agent, number: int, environ: dict[str, str], **more: Any) -> None:
    """Stage a release whose interpreter is ours, and give it traffic."""
    release = replace(worlds.release(number), **more)
    agent.stage(release.as_json(), [], environ)
    programs = agent.environments / release.environment / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    # A link would make Python look for its own packages beside it.
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    agent.switch(number)


# Plans --------------------------------------------------------------------------------


def test_a_restart_renews_asks_and_asks_as_a_user_would() -> None:
    world = worlds.world({"current": 2, "slots": {"1": "alive a", "2": "alive b"}})
    plan = plan_restart(world, worlds.ENVIRONMENT)
    assert [(step.verb, step.release) for step in plan.steps] == [
        ("reload", 2),
        ("gate", 2),
        ("smoke", 2),
    ]
    assert (plan.release, plan.previous) == (2, 2)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"current": None, "slots": {}}, "nothing is deployed"),
        ({"current": 2, "slots": {"2": "dead b"}}, "v2 does not run"),
        ({"current": 2, "slots": {"1": "alive a"}}, "v2 does not run"),
    ],
)
def test_a_restart_needs_something_that_runs(
    said: dict[str, Any], problem: str
) -> None:
    with pytest.raises(Refused, match=problem) as refused:
        plan_restart(worlds.world(said), worlds.ENVIRONMENT)
    assert refused.value.next


def test_a_fleet_is_restarted_one_host_after_the_other() -> None:
    world = worlds.world({"current": 1, "slots": {"1": "alive a"}})
    hosts = tuple(replace(world.hosts[0], name=name) for name in "ab")
    gone = replace(world.hosts[0], name="c", unreachable="no route")
    plan = plan_restart(replace(world, hosts=(*hosts, gone)), worlds.ENVIRONMENT)
    assert [(step.verb, step.host, step.stage) for step in plan.steps] == [
        *(("reload", "a", 0), ("gate", "a", 0), ("smoke", "a", 0)),
        *(("reload", "b", 1), ("gate", "b", 1), ("smoke", "b", 1)),
    ]
    assert plan.notes == ("not reached, left as it is: c",)
    one = plan_restart(replace(world, hosts=(*hosts, gone)), worlds.ENVIRONMENT, "b")
    assert {step.host for step in one.steps} == {"b"}


def test_a_dry_run_names_the_host_where_there_are_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = Plan("prune", "prod", tuple(Step("prune", host, "") for host in "ab"))
    foretell(plan)
    foretell(replace(plan, steps=plan.steps[:1]))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2:] for line in lines if "prune" in line] == [
        *(["a:"], ["b:"]),
        [],
    ]


def test_a_program_runs_where_it_is_asked_to() -> None:
    world = worlds.world({"current": 1, "slots": {"1": "alive a"}})
    hosts = tuple(replace(world.hosts[0], name=name) for name in "ab")
    gone = replace(world.hosts[0], name="c", unreachable="no route")
    bare = replace(world.hosts[0], name="d", current=None)
    world = replace(world, hosts=(gone, *hosts))
    where = partial(operate.where_to_run, world, worlds.ENVIRONMENT)
    assert [host.name for host in where()] == ["a"]
    assert [host.name for host in where("b")] == ["b"]
    with pytest.raises(Refused, match="c can't be reached: no route"):
        where(every=True)
    with pytest.raises(Usage) as usage:
        where("nowhere")
    assert usage.value.allowed == "c, a, b"
    with pytest.raises(Refused, match="nothing is deployed on d"):
        operate.where_to_run(replace(world, hosts=(bare,)), worlds.ENVIRONMENT, "d")


def test_pruning_names_what_goes_and_keeps_what_a_rollback_needs() -> None:
    slots = {str(n): "dead x" for n in range(1, 5)} | {"5": "alive y"}
    standing = {str(n): "good" for n in range(1, 6)}
    world = worlds.world({"current": 5, "slots": slots, "standing": standing})
    step, last = plan_prune(world, worlds.ENVIRONMENT, 3).steps
    assert (step.verb, step.text) == ("prune", "remove v1, v2, v3 and leftovers")
    assert (last.verb, last.release, last.days, last.optional) == ("empty", 5, 3, True)


def test_pruning_leaves_what_runs() -> None:
    world = worlds.world({"current": 2, "slots": {"1": "alive a", "2": "alive b"}})
    step, _ = plan_prune(world, worlds.ENVIRONMENT).steps
    assert step.text == "remove leftovers"


# Configuration ------------------------------------------------------------------------


def digest(value: str) -> str:
    return hmac.new(b"key", value.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("there", "coming", "wanted"),
    [
        ({"A": "1"}, {"A": "1"}, ("1", "1", "same")),
        ({"A": "1"}, {"A": "2"}, ("1", "2", "changed")),
        ({}, {"A": "2"}, (None, "2", "added")),
        ({"A": "1"}, {}, ("1", None, "removed")),
        ({"A": "1"}, {"A": Secret("1")}, ("1", "***", "changed")),
        ({"A": Secret("s")}, {"A": Secret("s")}, ("***", "***", "same")),
        ({"A": Secret("s")}, {"A": Secret("t")}, ("***", "***", "changed")),
        ({"A": Secret("s")}, {"A": "1"}, ("***", "1", "lost")),
        ({"A": Secret("s")}, {}, ("***", None, "lost")),
        ({}, {"A": Secret("s")}, (None, "***", "added")),
    ],
    ids=str,
)
def test_a_variable_is_compared_without_showing_a_secret(
    there: dict[str, Any], coming: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    held = {
        "values": {n: v for n, v in there.items() if isinstance(v, str)},
        "secrets": {n: digest(v.value) for n, v in there.items() if type(v) is Secret},
    }
    (row,) = compare(held, coming, b"key")
    assert (row.now, row.next, row.state) == wanted


def test_what_each_deploy_sets_anew_is_not_compared() -> None:
    held = {"values": {"MLTRADING_RELEASE": "v1"}, "secrets": {}}
    assert compare(held, {}, b"key") == []


def test_a_password_in_a_plain_address_is_masked() -> None:
    held = {"values": {"A": "postgresql://me:pw@db/x"}, "secrets": {}}
    (row,) = compare(held, {}, b"key")
    assert row.now == "postgresql://me:***@db/x"


def test_config_prints_the_difference_and_no_secret(
    agent: Agent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "DATABASE_URL", "postgresql://me:new@db/x")
    old = {"DATABASE_URL": "postgresql://me:old@db/x", "LOG_LEVEL": "debug"}
    staged(agent, 1, old, secrets=("DATABASE_URL",))
    operate.config("local", as_json=True)
    text = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(text)["variables"]}
    assert rows["DATABASE_URL"]["state"] == rows["LOG_LEVEL"]["state"] == "changed"
    assert "old" not in text and "new" not in text
    operate.config("local")
    assert "~  LOG_LEVEL" in capsys.readouterr().out


# Programs -----------------------------------------------------------------------------


def test_a_program_gets_the_releases_interpreter_and_environment(
    agent: Agent, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "FOREIGN", "1")
    staged(agent, 1, {"ENVIRONMENT": "local"})
    program = (
        "import os; print(os.environ['ENVIRONMENT'], os.getcwd(), "
        "os.environ['PYTHONPATH'], 'FOREIGN' in os.environ)"
    )
    assert operate.exec_("local", f'python -c "{program}"') == 0
    slot = agent.releases / "v1"
    assert capfd.readouterr().out == f"local {slot} {slot / 'lib'} False\n"


@pytest.mark.parametrize(
    ("program", "code"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_its_exit_code_is_passed_through(agent: Agent, program: str, code: int) -> None:
    staged(agent, 1, {})
    assert operate.exec_("local", f"python -c '{program}'") == code


@pytest.mark.parametrize("command", ["", "  ", "python 'half"])
def test_a_command_that_is_none_is_a_usage_error(command: str) -> None:
    with pytest.raises(Usage):
        operate.exec_("local", command)


def test_a_program_that_is_not_there_is_refused_by_its_name(agent: Agent) -> None:
    staged(agent, 1, {})
    with pytest.raises(Refused, match="no-such-program is not installed"):
        operate.exec_("local", "no-such-program")


@pytest.mark.integration
def test_the_shell_is_the_releases_python(agent: Agent) -> None:
    staged(agent, 1, {})
    source = f"from ops.hands import Hands; from ops.targets.agent import Agent; \
from pathlib import Path; Hands(Agent(Path({str(agent.root)!r}))).attend(1, 'shell')"
    done = subprocess.run(
        [sys.executable, "-c", source],
        input="import os; print(os.environ['PYTHONPATH'])",
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.stdout == f"{agent.releases / 'v1' / 'lib'}\n"


def test_psql_opens_the_embedded_database(
    agent: Agent, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    staged(agent, 1, {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})
    programs = agent.environments / "env" / "bin"
    (programs / "sqlite3").write_text('#!/bin/sh\necho "$@"\n')
    (programs / "sqlite3").chmod(0o755)
    assert operate.psql("local", "select 1") == 0
    said = capfd.readouterr().out
    assert said == f"-cmd .timeout 5000 {tmp_path}/x.db select 1\n"


def test_psql_gets_the_password_through_its_environment(
    agent: Agent, capfd: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql+psycopg://me:p%2Fw@db:5433/bars?sslmode=require"
    staged(agent, 1, {"DATABASE_URL": url})
    programs = agent.environments / "env" / "bin"
    (programs / "psql").write_text('#!/bin/sh\necho "$@"; env | grep ^PG | sort\n')
    (programs / "psql").chmod(0o755)
    assert operate.psql("local", "select 1") == 0
    assert capfd.readouterr().out.splitlines() == [
        "--command select 1",
        "PGDATABASE=bars",
        "PGHOST=db",
        "PGPASSWORD=p/w",
        "PGPORT=5433",
        "PGSSLMODE=require",
        "PGUSER=me",
    ]


@pytest.mark.parametrize("url", ["", "mysql://me:secret@db/x", "postgresql://h:x/[y"])
def test_an_address_without_a_shell_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(Refused) as refused:
        database_program(url)
    assert "secret" not in refused.value.what


def test_a_tool_that_is_missing_is_named_with_its_package(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged(agent, 1, {"DATABASE_URL": "postgresql://db/x"})
    monkeypatch.setitem(os.environ, "PATH", str(agent.root))
    with pytest.raises(Refused, match="psql is not installed") as refused:
        operate.psql("local")
    assert "postgresql-client" in refused.value.next


def test_nothing_deployed_has_no_shell(agent: Agent) -> None:
    with pytest.raises(Refused, match="nothing is deployed") as refused:
        operate.shell("local")
    assert refused.value.next == "inv deploy --env local"


# Restart ------------------------------------------------------------------------------

APP = """
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
CONF = """
import os
worker_class = "gthread"; workers = 2; threads = 4; preload_app = True
keepalive = 5; control_socket_disable = True; errorlog = "-"
def post_worker_init(worker):
    os.write(int(os.environ["READY"]), b"1")
"""


@pytest.fixture
def serving(agent: Agent) -> Iterator[Agent]:
    """A release of two real gunicorn workers."""
    staged(agent, 1, {})
    slot = agent.releases / "v1"
    (slot / "tiny.py").write_text(APP)
    (slot / "conf.py").write_text(CONF)
    argv = [
        *(sys.executable, "-m", "gunicorn", "--config", "conf.py"),
        *("--bind", "unix:app.sock", "--pid", str(slot / "app.pid"), "tiny:app"),
    ]
    ready, mark = os.pipe()
    with (slot / "app.log").open("wb") as log:
        master = subprocess.Popen(
            argv,
            cwd=slot,
            env={**os.environ, "READY": str(mark)},
            stdout=log,
            stderr=log,
            pass_fds=(mark,),
        )
    os.close(mark)
    try:
        for _ in range(2):
            assert os.read(ready, 1) == b"1", (slot / "app.log").read_text()
        yield agent
    finally:
        os.close(ready)
        master.terminate()
        master.wait()


@pytest.mark.integration
def test_a_restart_renews_every_worker_and_loses_no_request(serving: Agent) -> None:
    before = set(serving.keeper.running()[1])
    statuses: list[int] = []
    done = threading.Event()

    def load_it() -> None:
        while not done.is_set():
            statuses.append(serving.ask(1, [Request("GET", "/")])[0].status)

    clients = [threading.Thread(target=load_it) for _ in range(4)]
    for client in clients:
        client.start()
    facts = [Hands(serving).reload(1, 20.0) for _ in range(2)]
    done.set()
    for client in clients:
        client.join()
    assert facts == [{"renewed": 2, "busy": 0}] * 2
    assert set(statuses) == {200}
    assert len(before & set(serving.keeper.running()[1])) == 1


def test_a_release_that_does_not_run_is_not_renewed(agent: Agent) -> None:
    staged(agent, 1, {})
    with pytest.raises(Refused, match="v1 does not run"):
        Hands(agent).reload(1, 1.0)


# The lease ----------------------------------------------------------------------------


def holding(agent: Agent, *more: str) -> subprocess.Popen[bytes]:
    """Start a deployer that holds the lease; with a word more it ignores SIGTERM."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(agent.state), *more],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout.readline() == b"held\n"
    holder.stdout.close()
    return holder


@pytest.fixture
def holder(agent: Agent) -> Iterator[subprocess.Popen[bytes]]:
    process = holding(agent)
    yield process
    process.kill()
    process.wait()


def test_a_free_lease_needs_no_unlock(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    operate.unlock("local", force=True, reason="habit")
    assert "nothing to unlock" in capsys.readouterr().err


def test_a_dead_holders_run_is_named_and_needs_nothing(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    event = {"run": "r1", "op": "deploy", "phase": "begin", "at": 1.0, "release": 1}
    agent.journal.append({**event, "facts": {"by": "bob@ci", "previous": None}})
    operate.unlock("local")
    said = capsys.readouterr().err
    assert "deploy r1 of bob@ci did not end" in said and "next command" in said


def test_a_holder_is_shown_and_left_alone(
    agent: Agent, holder: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(Locked, match="bob@ci is doing a deploy") as locked:
        operate.unlock("local")
    assert locked.value.code == 3 and "--force" in locked.value.next
    assert holder.poll() is None


def test_force_without_a_reason_is_a_usage_error(
    agent: Agent, holder: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(Usage, match="know why"):
        operate.unlock("local", force=True, reason=" ")
    assert holder.poll() is None


@pytest.mark.integration
def test_force_ends_the_holder_and_the_journal_says_why(
    agent: Agent, holder: subprocess.Popen[bytes]
) -> None:
    operate.unlock("local", force=True, reason="stuck since noon")
    assert holder.wait(10) == -signal.SIGTERM
    run = agent.journal.history().runs[-1]
    assert (run.op, run.outcome) == ("unlock", "good")
    assert run.reason == "stuck since noon (ended bob@ci, a deploy)"
    assert Lease(agent.state).held_by() is None


@pytest.mark.integration
def test_a_number_in_a_file_is_not_enough_to_be_ended(
    agent: Agent, holder: subprocess.Popen[bytes]
) -> None:
    """The holder's file names a process that has nothing to do with the lease."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as innocent:
        said = json.loads(agent.lease.holder.read_text())
        agent.lease.holder.write_text(json.dumps({**said, "pid": innocent.pid}))
        facts = Hands(agent).end_holders(said["epoch"], 10.0)
        assert (facts["ended"], innocent.poll()) == ([holder.pid], None)
        innocent.stdin.close()


def test_somebody_who_took_it_meanwhile_is_not_ended(
    agent: Agent, holder: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(Refused, match="changed hands"):
        Hands(agent).end_holders(99, 1.0)
    assert holder.poll() is None


@pytest.mark.integration
def test_a_holder_that_does_not_listen_is_killed(agent: Agent) -> None:
    deaf = holding(agent, "deaf")
    facts = Hands(agent).end_holders(1, 0.05)
    assert (facts, deaf.wait(10)) == ({"ended": [deaf.pid], "killed": 1}, -9)


@pytest.mark.integration
def test_a_step_that_outlives_its_deployer_is_found_by_the_lock(agent: Agent) -> None:
    agent.lease.take("a deploy", "bob@ci", tell=print)
    held = agent.lease.descriptor
    step = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(held,))
    os.close(held)
    agent.lease.descriptor = -1
    said = json.loads(agent.lease.holder.read_text())
    agent.lease.holder.write_text(json.dumps({**said, "pid": 2**22 + 1}))
    assert Hands(agent).holders() == {"processes": [step.pid]}
    assert Hands(agent).end_holders(said["epoch"], 10.0)["ended"] == [step.pid]
    assert step.wait(10) == -signal.SIGTERM
    step.stdin.close()


def test_a_lock_of_another_users_kernel_can_only_be_named(
    agent: Agent, holder: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.hands._lock_holders", lambda path: [])
    with pytest.raises(Refused, match="no process of this user"):
        Hands(agent).end_holders(1, 1.0)


# Look back ----------------------------------------------------------------------------


@pytest.fixture
def past(agent: Agent) -> Agent:
    """A journal of a good deploy and of one that was put back."""
    for number, outcome in ((1, "good"), (2, "reverted")):
        at = time.time() - 7200 + number * 3600
        base = {"run": f"r{number}", "op": "deploy", "release": number}
        facts = {"by": "ann@laptop", "previous": number - 1 or None, "commit": "c0ffee"}
        end = {"outcome": outcome, "reason": "" if outcome == "good" else "smoke: no"}
        agent.journal.append({**base, "phase": "begin", "at": at, "facts": facts})
        step = {"seconds": 0.8}
        agent.journal.append(
            {**base, "phase": "done", "at": at + 1, "step": "boot", "facts": step}
        )
        agent.journal.append({**base, "phase": "end", "at": at + 2.5, "facts": end})
    return agent


def test_history_tells_every_run(
    past: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    operate.history("local")
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["when", "what", "how", "took", "by", "commit", "why"]
    assert "deploy v1" in first and "good" in first and "2.50 s" in first
    assert "deploy v2 (from v1)" in second and "smoke: no" in second


def test_history_of_a_release_shows_its_steps(
    past: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    operate.history("local", release="v2")
    assert capsys.readouterr().out.splitlines()[-1].split()[1:] == ["boot", "0.80", "s"]


def test_history_of_a_release_of_a_fleet_says_where_each_step_was(
    past: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {"run": "r3", "op": "deploy", "release": 3, "at": time.time()}
    past.journal.append({**base, "phase": "begin", "facts": {}})
    for host in ("one", "two"):
        step = {"phase": "done", "step": "boot", "host": host, "facts": {"seconds": 2}}
        past.journal.append({**base, **step})
    operate.history("local", release="v3")
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split()[-1] for line in lines] == ["one", "two"]


def test_history_says_who_let_a_deploy_through(
    past: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {"run": "r3", "op": "deploy", "release": 3, "at": time.time()}
    yes = {"by": "eve@desk", "how": "stored", "at": base["at"]}
    facts = {"by": "ann@laptop", "previous": 1, "approval": yes}
    past.journal.append({**base, "phase": "begin", "facts": facts})
    past.journal.append({**base, "phase": "end", "facts": {"outcome": "good"}})
    operate.history("local")
    head, first, *_, last = capsys.readouterr().out.splitlines()
    at = head.index("approved by")
    assert (first[at:].strip(), last[at:].strip()) == ("", "eve@desk")
    operate.history("local", release="v3")
    assert "approved by eve@desk (stored) at 20" in capsys.readouterr().out
    operate.history("local", lines=1, as_json=True)
    (told,) = json.loads(capsys.readouterr().out)["runs"]
    assert told["approval"] == yes


def test_history_as_json_is_one_document(
    past: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    operate.history("local", lines=1, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [run["release"] for run in found["runs"]] == [2]


def test_an_empty_history_says_so(
    agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    operate.history("local")
    operate.report_task("local")
    said = capsys.readouterr()
    assert "nothing was ever done" in said.err and "no deploy" in said.err
    assert said.out == ""


def test_the_report_reads_without_colour(
    past: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    operate.report_task("local", since="all")
    text = capsys.readouterr().out
    assert "1 good, 1 reverted" in text and "50.0 %" in text
    assert "change failure rate" in text and "█░ 1 good, 1 not" in text


def test_the_report_knows_when_a_commit_was_made() -> None:
    words = ("git", "log", "-1", "--format=%H %ct")
    root = Path(__file__).parents[2]
    said = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    commit, at = said.stdout.split()
    assert operate._commit_times({commit, "f" * 40}) == {commit: float(at)}
