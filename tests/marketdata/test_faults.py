"""What happens to those who ask when the database is not well, on real servers."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest
import sqlalchemy as sa

from mltrading_marketdata import (
    Hooks,
    Limits,
    PoolExhausted,
    StoreError,
    Unavailable,
    open_store,
)
from mltrading_marketdata.access import Access
from mltrading_marketdata.hooks import SILENT
from mltrading_marketdata.url import parse

postgresql = pytest.mark.integration
CLIENTS = 8
PATIENCE_S = 30
number = sa.text("SELECT :n")


@pytest.fixture
def reach():
    """Reach a database with some limits and hooks; the connections are closed later."""
    with ExitStack() as stack:

        def make(url: str, hooks: Hooks = SILENT, **limits) -> Access:
            access = Access(parse(url), Limits(**limits), hooks=hooks)
            stack.callback(access.close)
            return access

        yield make


class Clients:
    """Threads that read without a pause; each counts its answers and its failures."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.retried: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.failures: list[StoreError] = []
        self._moved = threading.Condition()
        self._ended = False
        self._access = Access(parse(url), limits, hooks=Hooks(retried=self._retried))

    def _retried(self, name: str, reason: str) -> None:
        with self._moved:
            self.retried[threading.current_thread().name] += 1
            self._moved.notify_all()

    def _ask(self, n: int) -> None:
        while not self._ended:
            try:
                found = self._access.read(
                    lambda c: c.execute(number, {"n": n}).scalar()
                )
                assert found == n
            except StoreError as error:
                self.failures.append(error)
            with self._moved:
                self.answers[n] += 1
                self._moved.notify_all()

    def wait_for(self, what: Counter, more: int) -> None:
        """Wait until each client has `more` of `what` than now."""
        before = Counter(what)
        with self._moved:
            assert self._moved.wait_for(
                lambda: sum(what[key] - before[key] >= more for key in what) == CLIENTS,
                PATIENCE_S,
            )

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended = True
            for thread in threads:
                thread.join(PATIENCE_S)
            self._access.close()


@postgresql
def test_no_read_fails_over_a_restart_of_the_server(cluster, postgres_url):
    clients = Clients(postgres_url, Limits(pool_size=CLIENTS))
    with clients.asking():
        clients.wait_for(clients.answers, 20)
        cluster.stop()
        clients.wait_for(clients.retried, 3)
        cluster.start()
        clients.wait_for(clients.answers, 20)
    assert clients.failures == []
    assert min(clients.retried.values()) >= 3 and len(clients.retried) == CLIENTS


@postgresql
def test_no_read_fails_when_a_process_of_the_server_is_killed(cluster, postgres_url):
    clients = Clients(postgres_url, Limits(pool_size=CLIENTS))
    with clients.asking():
        clients.wait_for(clients.answers, 20)
        with psycopg.connect(postgres_url) as c:
            (victim,) = c.execute(
                "SELECT min(pid) FROM pg_stat_activity WHERE application_name ="
                " 'mltrading' AND datname = current_database()"
            ).fetchone()
        os.kill(victim, signal.SIGKILL)
        clients.wait_for(clients.answers, 20)
    assert clients.failures == [] and clients.retried


@postgresql
def test_a_frozen_server_frees_the_caller_at_its_deadline(cluster, postgres_url, reach):
    access = reach(postgres_url, pool_size=4, statement_timeout_s=0, deadline_s=0.6)
    assert _one(access) == 1

    def ask(_: int) -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer came in time"):
            _one(access)
        return time.monotonic() - began

    # One asks on the connection there is, three have to connect.
    with cluster.frozen(), ThreadPoolExecutor(4) as pool:
        took = sorted(pool.map(ask, range(4)))
    assert 0.55 < took[0] and took[-1] < 0.8, took
    assert _one(access) == 1


@postgresql
def test_a_frozen_server_is_waited_for_by_the_statement_not_by_the_deadline(
    cluster, postgres_url, reach
):
    said = []
    hooks = Hooks(retried=lambda *news: said.append(news))
    access = reach(postgres_url, hooks, statement_timeout_s=0.05, deadline_s=30)
    assert _one(access) == 1
    with ThreadPoolExecutor(1) as pool:
        with cluster.frozen():
            answer = pool.submit(_one, access)
            assert _until(lambda: said)
        assert answer.result(PATIENCE_S) == 1
    assert said[0] == ("_one", "silent")


@postgresql
def test_a_slow_statement_is_ended_and_not_asked_again(postgres_url, reach):
    said = []
    hooks = Hooks(retried=lambda *news: said.append(news))
    access = reach(postgres_url, hooks, statement_timeout_s=0.05)
    with pytest.raises(Unavailable, match="did not finish a statement in time"):
        access.read(lambda c: c.exec_driver_sql("SELECT pg_sleep(60)"))
    assert said == [] and _one(access) == 1


def test_a_full_pool_says_so_within_two_seconds(url, reach):
    access = reach(url, pool_size=2)
    held, began = threading.Barrier(3), time.monotonic()

    def hold(c: sa.Connection) -> None:
        held.wait()
        free.wait(PATIENCE_S)

    free = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        list(pool.submit(access.read, hold) for _ in range(2))
        held.wait()
        began = time.monotonic()
        with pytest.raises(PoolExhausted, match="all 2 connections .* were busy"):
            _one(access)
        took = time.monotonic() - began
        free.set()
    assert took < 2 and _one(access) == 1


@postgresql
def test_a_server_that_is_down_at_the_start_is_told_at_once(cluster, postgres_url):
    cluster.stop()
    try:
        began = time.monotonic()
        with open_store(postgres_url) as store, pytest.raises(Unavailable) as caught:
            store.symbols()
        took = time.monotonic() - began
    finally:
        cluster.start()
    assert took < 1 and "does not answer" in str(caught.value)


@postgresql
def test_a_server_that_is_gone_for_long_is_waited_for_once(
    cluster, postgres_url, reach
):
    access = reach(postgres_url, deadline_s=0.5)
    assert _one(access) == 1
    cluster.stop()
    took = []
    try:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                _one(access)
            took.append(time.monotonic() - began)
    finally:
        cluster.start()
    assert took[0] > 0.2 and max(took[1:]) < 0.1 and _one(access) == 1


@postgresql
def test_a_plan_that_a_migration_has_spoilt_is_made_again(postgres_url, reach):
    reasons = []
    access = reach(postgres_url, Hooks(retried=lambda name, why: reasons.append(why)))
    with psycopg.connect(postgres_url, autocommit=True) as c:
        c.execute("CREATE TABLE t AS SELECT 1 AS a")

    def work(c: sa.Connection) -> tuple:
        known = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'q'"
        if not c.exec_driver_sql(known).scalar():
            c.exec_driver_sql("PREPARE q AS SELECT * FROM t")
        if not reasons:
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("ALTER TABLE t ADD COLUMN b int DEFAULT 2")
        return c.exec_driver_sql("EXECUTE q").one()

    assert access.read(work) == (1, 2) and reasons == ["plan"]


@postgresql
def test_a_connection_that_idled_is_probed_before_a_writer_gets_it(
    postgres_url, monkeypatch, reach
):
    monkeypatch.setattr("mltrading_marketdata.engine.PROBE_AFTER_S", 0)
    access = reach(postgres_url)
    with access.writing() as c:
        first = c.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    with psycopg.connect(postgres_url, autocommit=True) as c:
        c.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    with access.writing() as c:
        assert c.exec_driver_sql("SELECT pg_backend_pid()").scalar() != first


@postgresql
def test_a_server_that_takes_no_writes_says_so(store_on_postgres, postgres_url, bars):
    name = parse(postgres_url).where.rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as c:
        c.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with open_store(postgres_url) as reader:
        with pytest.raises(Unavailable, match="is read-only") as caught:
            reader.upsert_bars("ACME", "1d", bars(1), source="test")
        assert "primary" in caught.value.hint
        assert list(reader.symbols().index) == ["ACME"]


@pytest.fixture
def store_on_postgres(postgres_url):
    import pandas as pd

    with open_store(postgres_url) as store:
        store.upsert_symbols(pd.DataFrame(index=["ACME"]))
        yield store


WRITERS, EACH = 4, 150


@pytest.mark.integration
def test_processes_that_write_to_one_file_never_meet_a_locked_one(sqlite_url, reach):
    access = reach(sqlite_url)
    with access.writing() as c:
        c.exec_driver_sql("INSERT INTO meta VALUES ('count', '0')")
    children = [_fork(lambda: _count_up(access)) for _ in range(WRITERS)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * WRITERS
    with access.writing() as c:
        count = c.exec_driver_sql("SELECT value FROM meta WHERE key = 'count'").scalar()
    assert count == str(WRITERS * EACH)


def _count_up(access: Access) -> bool:
    """Read, then write, in one transaction: what a deferred BEGIN does not survive."""
    for _ in range(EACH):
        with access.writing() as c:
            found = c.exec_driver_sql("SELECT value FROM meta WHERE key = 'count'")
            more = str(int(found.scalar()) + 1)
            c.exec_driver_sql("UPDATE meta SET value = ? WHERE key = 'count'", (more,))
    return True


@postgresql
def test_processes_that_write_one_new_block_lose_no_bar(
    store_on_postgres, postgres_url, bars
):
    whole = bars(80)

    def write(part: int) -> bool:
        with open_store(postgres_url) as own:
            for day in range(part, 80, WRITERS):
                own.upsert_bars("ACME", "1d", whole[day : day + 1], source="test")
        return True

    children = [_fork(lambda part=part: write(part)) for part in range(WRITERS)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * WRITERS
    found = store_on_postgres.bars("ACME")["close"]
    assert found.tolist() == whole["close"].tolist()


@postgresql
def test_forked_children_get_no_answer_of_another(postgres_url, reach):
    access = reach(postgres_url, pool_size=2)

    def ask(first: int) -> bool:
        return all(
            access.read(lambda c: c.execute(number, {"n": n}).scalar()) == n
            for n in range(first, first + 300)
        )

    assert ask(0)
    children = [_fork(lambda n=n: ask(1000 * n)) for n in (1, 2, 3)]
    assert ask(4000)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


@pytest.fixture
def gunicorn(postgres_url, tmp_path) -> Iterator[int]:
    """Serve forked.py with three workers, forked from a master that has read."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers=3"]
    command += ["--worker-class=gthread", "--threads=4", "--no-control-socket"]
    command += [f"--bind=fd://{listener.fileno()}", "tests.marketdata.forked"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            pass_fds=[listener.fileno()],
            env={"PATH": os.environ["PATH"], "DATABASE_URL": postgres_url},
            stderr=log,
        )
    port = listener.getsockname()[1]
    listener.close()
    yield port
    process.terminate()
    process.wait(PATIENCE_S)
    assert "Traceback" not in (tmp_path / "log").read_text()


@postgresql
def test_workers_of_gunicorn_give_900_right_answers(gunicorn):
    def ask(n: int) -> tuple[str, bool]:
        # A connection each: one that is kept stays with its worker.
        with closing(
            http.client.HTTPConnection("127.0.0.1", gunicorn, timeout=30)
        ) as c:
            c.request("GET", f"/{n}")
            worker, answer = c.getresponse().read().decode().split()
        return worker, answer == str(n)

    seen: set[str] = set()
    assert _until(lambda: seen.add(ask(0)[0]) or len(seen) == 3)
    with ThreadPoolExecutor(12) as clients:
        found = list(clients.map(ask, range(900)))
    right = Counter(worker for worker, ok in found if ok)
    assert (right.total(), set(right)) == (900, seen)


@pytest.mark.integration
def test_a_disk_that_is_full_is_told_and_mended_by_space(tmp_path):
    """In a mount namespace of its own, on a file system of one megabyte."""
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc"]
    mount = f'mount -t tmpfs -o size=1m none {tmp_path}; exec "$@"'
    ask = [sys.executable, "-c", FILL, f"sqlite:///{tmp_path}/market.db"]
    done = subprocess.run(
        [*alone, mount, "sh", *ask], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split("\n")[:3] == ["full", "free space", "reads"], done.stderr
    assert not list(tmp_path.iterdir())


FILL = """
import sys
from mltrading_marketdata import Unavailable
from mltrading_marketdata.access import Access
from mltrading_marketdata.hooks import SILENT
from mltrading_marketdata.migration import migrate
from mltrading_marketdata.url import parse

address = parse(sys.argv[1])
migrate(address)
access = Access(address)
try:
    while True:
        with access.writing() as c:
            c.exec_driver_sql(
                "INSERT INTO meta VALUES (hex(randomblob(8)), hex(randomblob(20000)))"
            )
except Unavailable as error:
    print(str(error).rpartition("the disk is ")[2])
    print(error.hint.partition(" on ")[0])
count = access.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM meta").scalar())
print("reads" if count else "lost")
"""


def _one(access: Access) -> int:
    return access.read(lambda c: c.exec_driver_sql("SELECT 1").scalar())


def _until(happened) -> bool:
    """Wait for something that a thread does; it is looked for, not slept through."""
    late = time.monotonic() + PATIENCE_S
    while not happened() and time.monotonic() < late:
        os.sched_yield()
    return bool(happened())


def _fork(work) -> int:
    child = os.fork()
    if child:
        return child
    verdict = 1
    try:
        verdict = 0 if work() else 1
    finally:
        os._exit(verdict)
