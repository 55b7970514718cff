"""A reset sets the database aside, and is undone in a moment; readers go on."""

import threading
from datetime import timedelta

import psycopg
import pytest

from mltrading_marketdata import (
    OutOfRange,
    StoreError,
    Unavailable,
    UnknownSymbol,
    open_store,
    revisions,
    schemas,
    trash,
)
from mltrading_marketdata.__main__ import main
from mltrading_marketdata.backup import backup, restore
from mltrading_marketdata.marker import Marker, write
from mltrading_marketdata.migration import drift
from mltrading_marketdata.preparation import prepare, schema
from mltrading_marketdata.url import parse
from tests.marketdata.databases import answer, execute

# Whole databases are written, set aside and brought back.
pytestmark = pytest.mark.integration

PROD = Marker("prod", "production")
STAGING = Marker("staging", "staging")


@pytest.fixture
def filled(store, url, bars):
    """An address with three bars of one symbol."""
    store.upsert_bars("ACME", "1d", bars(3), source="test")
    return parse(url)


def test_a_reset_leaves_an_empty_database_of_this_release(filled, store):
    done = trash.reset(filled)
    assert (done["applied"], done["schema"]) == (
        revisions.shipped(),
        revisions.shipped()[-1],
    )
    assert store.info()["symbols"] == 0 and len(store.symbols()) == 0
    assert drift(filled) == []


def test_an_undo_brings_everything_back_and_can_be_undone(filled, store):
    stamp = store.version("ACME")
    aside = trash.reset(filled)["aside"]
    with pytest.raises(UnknownSymbol):
        store.version("ACME")
    done = trash.undo(filled)
    assert done["undone"] == aside and store.version("ACME") == stamp
    assert [one.name for one in trash.listed(filled)] == [done["aside"]]
    trash.undo(filled)
    assert store.info()["bars"] == 0


def test_of_several_the_one_that_is_named_comes_back(filled, store):
    first = trash.reset(filled)["aside"]
    second = trash.reset(filled)["aside"]
    assert [one.name for one in trash.listed(filled)] == [second, first]
    trash.undo(filled, first)
    assert store.info()["bars"] == 3
    with pytest.raises(StoreError, match="trash_x is set aside") as refused:
        trash.undo(filled, "trash_x")
    assert second in refused.value.hint


def test_an_undo_without_a_reset_says_so(url):
    with pytest.raises(StoreError, match="nothing is set aside"):
        trash.undo(parse(url))


def test_what_was_set_aside_before_a_migration_is_migrated_first(filled, ship, store):
    trash.reset(filled)
    number = ship("op.add_column('symbol', sa.Column('note', sa.Text))")
    prepare(filled)
    assert trash.undo(filled)["applied"] == [number]
    assert answer(filled, "SELECT note FROM symbol") == [(None,)]


def test_an_undo_that_a_release_could_not_live_with_changes_nothing(filled, ship):
    trash.reset(filled)
    number = ship("op.add_column('symbol', sa.Column('note', sa.Text))")
    with pytest.raises(OutOfRange, match=f"would come to {number}"):
        trash.undo(filled, within=("0001", revisions.shipped()[-2]))
    assert len(trash.listed(filled)) == 1
    assert answer(filled, "SELECT * FROM symbol") == []


def test_old_trash_is_removed_for_good(filled, store):
    trash.reset(filled)
    assert trash.empty(filled, older_than=timedelta(days=1)) == []
    (kept,) = trash.listed(filled)
    assert trash.empty(filled, older_than=timedelta()) == [kept.name]
    assert trash.listed(filled) == [] and store.info()["bars"] == 0


def test_leftovers_of_a_killed_reset_are_removed_with_it(filled):
    if filled.dialect == "sqlite":
        (filled.file.parent / f".{filled.name}.new-x").mkdir()
        (filled.file.parent / f".{filled.name}.trash-x.partial").touch()
    else:
        with schemas.connected(filled) as c:
            schemas.make(c)
    assert trash.empty(filled, older_than=timedelta())
    assert trash.empty(filled, older_than=timedelta()) == []


@pytest.mark.integration
def test_views_and_functions_are_set_aside_and_come_back(postgres_url):
    address = parse(postgres_url)
    execute(
        address,
        "CREATE VIEW tickers AS SELECT ticker FROM symbol",
        "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS $$ SELECT 2 * n $$",
    )
    trash.reset(address)
    gone = "SELECT to_regclass('tickers'), to_regproc('twice')"
    assert answer(address, gone) == [(None, None)]
    trash.undo(address)
    assert answer(address, "SELECT twice(2), (SELECT count(*) FROM tickers)") == [
        (4, 0)
    ]


@pytest.mark.integration
def test_who_could_read_can_read_after_a_reset(postgres_url):
    address = parse(postgres_url)
    execute(
        address,
        "DROP ROLE IF EXISTS looker",
        "CREATE ROLE looker LOGIN",
        "GRANT SELECT ON symbol TO looker",
    )
    trash.reset(address)
    looker = postgres_url.replace("postgres@", "looker@")
    assert answer(parse(looker), "SELECT count(*) FROM symbol") == [(0,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        answer(parse(looker), "SELECT count(*) FROM meta")


@pytest.mark.integration
def test_the_owner_of_the_database_needs_no_other_right(server, tmp_path, bars):
    owner, base = "ordinary", "owned"
    with psycopg.connect(server, autocommit=True) as c:
        c.execute(f"CREATE ROLE {owner} LOGIN")
        c.execute(f"CREATE DATABASE {base} OWNER {owner} TEMPLATE template0")
    url = server.replace("/postgres?", f"/{base}?").replace("postgres@", f"{owner}@")
    address = parse(url)
    prepare(address, seed="sample", mark=STAGING)
    made = backup(address, tmp_path / "copy")
    trash.reset(address)
    restore(address, made.path)
    trash.undo(address)
    trash.undo(address)
    with open_store(url) as store:
        assert store.info()["bars"] == 12154
    assert trash.empty(address, older_than=timedelta())
    assert schema(address)["environment"] == "staging"


@pytest.mark.integration
def test_a_schema_that_cannot_be_renamed_says_what_is_needed(postgres_url, server):
    with psycopg.connect(server, autocommit=True) as c:
        c.execute("DROP ROLE IF EXISTS guest")
        c.execute("CREATE ROLE guest LOGIN")
    guest = parse(postgres_url.replace("postgres@", "guest@"))
    with pytest.raises(Unavailable, match="permission denied"):
        trash.reset(guest)


@pytest.mark.integration
def test_an_extension_in_the_schema_is_not_set_aside_with_it(postgres_url):
    address = parse(postgres_url)
    execute(address, "CREATE EXTENSION pgcrypto")
    with pytest.raises(StoreError, match="holds the extension pgcrypto") as refused:
        trash.reset(address)
    assert "ALTER EXTENSION pgcrypto SET SCHEMA" in refused.value.hint
    with schemas.connected(address) as c:
        assert schemas.listed(c, "incoming") == []


@pytest.mark.integration
def test_a_reset_beside_a_migration_changes_nothing(postgres_url):
    address = parse(postgres_url)
    with psycopg.connect(address.libpq) as migrator:
        migrator.execute(f"SELECT pg_advisory_xact_lock({schemas.LOCK_KEY})")
        with schemas.connected(address) as c:
            name = schemas.make(c)
            with pytest.raises(Unavailable, match="is at work on this database"):
                schemas.exchange(c, address, name, None)
            schemas.drop(c, name)
    assert trash.listed(address) == []


def test_readers_go_on_through_reset_undo_and_restore(filled, url, tmp_path):
    """Eight readers ask all the time; each answer is the old or the new, none fails."""
    made = backup(filled, tmp_path / "copy")
    done, asked, wrong = threading.Event(), threading.Condition(), []
    answers = [[] for _ in range(8)]

    def read(own):
        with open_store(url) as store:
            while not done.is_set() and not wrong:
                try:
                    found = len(store.bars("ACME"))
                except UnknownSymbol:
                    found = 0
                except Exception as error:
                    wrong.append(error)
                with asked:
                    own.append(found)
                    asked.notify()

    readers = [threading.Thread(target=read, args=(own,)) for own in answers]
    for reader in readers:
        reader.start()
    for work, left in (
        (lambda: trash.reset(filled), 0),
        (lambda: trash.undo(filled), 3),
        (lambda: trash.reset(filled), 0),
        (lambda: restore(filled, made.path), 3),
    ):
        work()
        with asked:
            for own in answers:
                own.clear()
            # What was asked before the change may be answered once more, and what is
            # known of a symbol holds for a second.
            assert asked.wait_for(
                lambda: wrong or all(left in own for own in answers), timeout=30
            )
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_what_a_writer_wrote_last_is_in_what_was_set_aside(filled, url):
    """A writer that has not ended yet is waited for, and nothing of it is lost."""
    stop, written = threading.Event(), []

    def write_on():
        with open_store(url) as store:
            number = 0
            while not stop.is_set():
                try:
                    store.set_meta(f"n{number}", "x")
                except StoreError:
                    return
                written.append(number)
                number += 1

    writer = threading.Thread(target=write_on)
    writer.start()
    while len(written) < 5:
        assert writer.is_alive()
    trash.reset(filled)
    stop.set()
    writer.join()
    left = answer(filled, "SELECT count(*) FROM meta WHERE key LIKE 'n%'")[0][0]
    trash.undo(filled)
    kept = answer(filled, "SELECT count(*) FROM meta WHERE key LIKE 'n%'")[0][0]
    assert kept + left >= len(written)


# Whose it is --------------------------------------------------------------------------


def test_the_first_prepare_marks_a_database_and_no_later_one_does(empty_url):
    address = parse(empty_url)
    assert prepare(address, mark=STAGING)["state"] == "current"
    assert (schema(address)["environment"], schema(address)["kind"]) == (
        "staging",
        "staging",
    )
    prepare(address, mark=STAGING)
    for other in (PROD, Marker("staging", "production")):
        with pytest.raises(StoreError, match=r"of staging \(staging\), not of") as no:
            prepare(address, mark=other)
        assert "mark" in no.value.hint and "--was staging" in no.value.hint
    assert prepare(address)["state"] == "current"


def test_the_marker_outlives_a_reset_and_an_undo(filled):
    write(filled, PROD)
    trash.reset(filled)
    assert schema(filled)["kind"] == "production"
    write(filled, STAGING, anew=True)
    trash.undo(filled)
    assert schema(filled)["environment"] == "staging"


def test_a_marker_that_cannot_be_read_counts_as_production(url):
    execute(parse(url), "INSERT INTO meta VALUES ('environment', 'whatever')")
    assert schema(parse(url))["kind"] == "production"


def run(url, *words, **environ):
    return main([*words, "--json"], {"DATABASE_URL": url, **environ})


STAGES = {"ENVIRONMENT": "staging", "ENVIRONMENT_KIND": "staging"}
PRODUCES = {"ENVIRONMENT": "prod", "ENVIRONMENT_KIND": "production"}


@pytest.mark.parametrize(
    ("marked", "environ"),
    [
        (PROD, {}),
        (PROD, PRODUCES),
        # The variable says one thing, the database another.
        (PROD, STAGES),
        (STAGING, PRODUCES),
        (None, PRODUCES),
    ],
)
@pytest.mark.parametrize("verb", ["reset", "undo", "restore"])
def test_production_is_not_emptied_without_force_and_its_name(
    filled, url, tmp_path, marked, environ, verb
):
    made = backup(filled, tmp_path / "copy")
    trash.reset(filled)
    trash.undo(filled)
    if marked:
        write(filled, marked)
    words = [verb, *([str(made.path)] if verb == "restore" else [])]
    force = ["--force", "--name"]
    for more in ([], ["--force"], [*force, "other"], ["--name", filled.name]):
        assert run(url, *words, *more, **environ) == 1
        assert len(trash.listed(filled)) == 1
    assert run(url, *words, *force, filled.name, **environ) == 0


def test_a_name_and_force_are_not_needed_elsewhere(filled, url):
    write(filled, STAGING)
    assert run(url, "reset", **STAGES) == 0
    assert run(url, "undo", **STAGES) == 0
    assert run(url, "empty", "--older-than", "0", **STAGES) == 0


def test_a_marker_is_changed_by_who_knows_what_it_was(url, capsys):
    assert run(url, "mark", "prod", "production") == 0
    assert run(url, "mark", "staging", "staging") == 1
    assert "--was prod" in capsys.readouterr().err
    assert run(url, "mark", "staging", "staging", "--was", "prod") == 0
    assert schema(parse(url))["environment"] == "staging"


def test_a_kind_that_there_is_not_is_refused(url, capsys):
    assert run(url, "schema", ENVIRONMENT="prod", ENVIRONMENT_KIND="prd") == 1
    assert "development, staging, production" in capsys.readouterr().err
