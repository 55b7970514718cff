"""Migrations, backup, restore and prepare, on both engines."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from mltrading_marketdata import (
    OutOfRange,
    SampleSource,
    StoreError,
    Unavailable,
    ingest,
    open_store,
    revisions,
)
from mltrading_marketdata.backup import known
from mltrading_marketdata.migration import drift, migrate, sql
from mltrading_marketdata.preparation import prepare, schema
from mltrading_marketdata.url import parse
from tests.marketdata.databases import execute

HEAD = revisions.shipped()[-1]


def structure(address):
    """Return what the catalogue says of every table: columns, keys, indexes."""
    engine = sa.create_engine(address.sqlalchemy)
    with closing(engine.connect()) as connection:
        look = sa.inspect(connection)
        found = {
            table: [
                [{**column, "type": str(column["type"])} for column in columns],
                look.get_pk_constraint(table),
                look.get_foreign_keys(table),
                sorted(map(str, look.get_unique_constraints(table))),
                sorted(map(str, look.get_indexes(table))),
            ]
            for (_, table), columns in look.get_multi_columns().items()
        }
    engine.dispose()
    return found


def downgrade(address, to):
    engine = sa.create_engine(address.sqlalchemy)
    config = Config()
    config.set_main_option("script_location", str(revisions.MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, to)
    engine.dispose()


def test_the_tables_are_what_the_migrations_make(url):
    assert drift(parse(url)) == []


def test_up_down_and_up_again_end_where_they_began(url):
    address = parse(url)
    before = structure(address)
    downgrade(address, "base")
    assert set(structure(address)) == {"alembic_version"}
    assert migrate(address) == revisions.shipped()
    assert structure(address) == before


def test_what_somebody_changed_by_hand_is_named(url):
    execute(
        parse(url),
        "ALTER TABLE symbol ADD COLUMN note TEXT",
        "CREATE TABLE later (id INTEGER)",
        "DROP TABLE reject",
    )
    said = drift(parse(url))
    assert any("besides the table later" in line for line in said), said
    assert any("lacks the table reject" in line for line in said), said
    assert any("besides the column symbol.note" in line for line in said), said


def test_the_revisions_are_alembic_s_own_in_one_line():
    config = Config()
    config.set_main_option("script_location", str(revisions.MIGRATIONS))
    line = ScriptDirectory.from_config(config).walk_revisions()
    assert [one.revision for one in line][::-1] == revisions.shipped()
    low, high = revisions.supported()
    assert low in revisions.shipped() and revisions.shipped()[-1] <= high


def test_prepare_makes_and_fills_a_database(empty_url):
    address = parse(empty_url)
    done = prepare(address, seed="sample")
    assert (done["applied"], done["ingested"]) == (revisions.shipped(), 12154)
    assert (done["head"], done["database"]) == (HEAD, address.dialect)
    assert schema(address)["state"] == "current"


def test_a_seed_that_was_cut_off_is_carried_on(url):
    with open_store(url) as store:
        store.set_meta("seeding", "sample")
        ingest(store, SampleSource(), ["IBM"])
    assert prepare(parse(url), seed="sample")["ingested"] == 12154 - 3270
    assert prepare(parse(url), seed="sample")["ingested"] == 0


def test_a_database_with_bars_of_its_own_is_not_seeded(store, url, bars):
    store.upsert_bars("ACME", "1d", bars(1), source="test")
    assert prepare(parse(url), seed="sample")["ingested"] == 0


def test_prepare_again_does_nothing(url, tmp_path):
    done = prepare(parse(url), backup_dir=tmp_path / "kept")
    assert (done["applied"], done["backup"], done["ingested"]) == ([], None, 0)
    assert not (tmp_path / "kept").exists()


def test_prepare_backs_up_before_it_migrates(url, tmp_path, ship):
    number = ship("op.execute('CREATE TABLE second (id INTEGER)')")
    done = prepare(parse(url), backup_dir=tmp_path / "kept")
    kept = known(Path(done["backup"]))
    assert done["applied"] == [number] and kept.schema < number
    assert "symbol" in kept.contents.tables and "second" not in kept.contents.tables


def test_a_failing_migration_leaves_the_schema_as_it_was(url, ship):
    ship("op.execute('CREATE TABLE half (id INTEGER)')")
    ship("op.execute('CREATE TABLE symbol (id INTEGER)')")
    before = revisions.observe(parse(url))
    with pytest.raises(Unavailable, match="already exists"):
        migrate(parse(url))
    assert revisions.observe(parse(url)) == before


def test_a_newer_database_is_reported_and_left_alone(url):
    execute(parse(url), "UPDATE alembic_version SET version_num = '0099'")
    assert schema(parse(url))["state"] == "ahead"
    assert schema(parse(url))["pending"] == []
    done = prepare(parse(url), seed="sample")
    assert (done["state"], done["schema"]) == ("ahead", "0099")
    assert migrate(parse(url)) == []


def test_a_database_that_this_release_cannot_use_is_refused(url):
    execute(parse(url), "UPDATE alembic_version SET version_num = '0100'")
    with pytest.raises(OutOfRange, match="is at 0100, this release works on 0001"):
        prepare(parse(url), seed="sample")


def test_a_migration_that_others_cannot_live_with_changes_nothing(empty_url):
    with pytest.raises(OutOfRange, match=f"would come to {HEAD}"):
        prepare(parse(empty_url), within=("0098", "0099"))
    assert schema(parse(empty_url))["state"] == "empty"
    assert prepare(parse(empty_url), within=("0001", "0099"))["schema"] == HEAD


def test_somebody_else_s_database_is_refused(empty_url):
    address = parse(empty_url)
    execute(address, "CREATE TABLE payroll (id INTEGER)")
    with pytest.raises(Unavailable, match="not of this application"):
        prepare(address)


def test_a_dry_run_prints_sql_and_changes_nothing(empty_url):
    address = parse(empty_url)
    text = sql(address, revisions.observe(address))
    assert "CREATE TABLE chunk" in text
    assert schema(address)["state"] == "empty"


TWINS = "INSERT INTO symbol VALUES ({}, '{}', 'same', '', '', '', '')"
INDEX = "build_index('symbol_name_idx', 'symbol', ['name'])"


def test_an_index_is_built_on_its_own_and_what_follows_after_it(url, ship):
    first = ship("op.add_column('symbol', sa.Column('note', sa.Text))")
    second = ship(INDEX, head="concurrently = True")
    third = ship("op.add_column('symbol', sa.Column('more', sa.Text))")
    text = sql(parse(url), revisions.observe(parse(url)))
    assert migrate(parse(url)) == [first, second, third]
    assert "symbol_name_idx" in str(structure(parse(url))["symbol"][4])
    assert ("CONCURRENTLY" in text) == (parse(url).dialect == "postgresql")
    assert migrate(parse(url)) == []


def test_a_database_that_is_made_gets_its_indexes_with_its_tables(empty_url, ship):
    number = ship(INDEX, head="concurrently = True")
    assert migrate(parse(empty_url))[-1] == number
    assert "symbol_name_idx" in str(structure(parse(empty_url))["symbol"][4])


@pytest.mark.integration
def test_an_index_that_was_not_built_to_its_end_is_built_again(postgres_url, ship):
    address = parse(postgres_url)
    number = ship(
        INDEX.replace("['name']", "['name'], unique=True"), head="concurrently = True"
    )
    execute(address, TWINS.format(1, "A"), TWINS.format(2, "B"))
    with pytest.raises(Unavailable, match="could not create unique index"):
        migrate(address)
    assert drift(address)[-1] == "index symbol_name_idx was not built to its end"
    execute(address, "DELETE FROM symbol WHERE id = 2")
    assert migrate(address) == [number]
    assert "not built" not in str(drift(address))


@pytest.mark.integration
def test_an_index_that_waits_too_long_for_an_old_transaction_says_so(
    postgres_url, ship, monkeypatch
):
    address = parse(postgres_url)
    number = ship(INDEX, head="concurrently = True")
    monkeypatch.setattr("mltrading_marketdata.migration._PATIENCE_S", 0.1)
    with psycopg.connect(address.libpq) as writer:
        writer.execute(TWINS.format(1, "A"))
        with pytest.raises(Unavailable, match="a transaction that is older"):
            migrate(address)
    assert migrate(address) == [number]


@pytest.mark.integration
def test_readers_wait_at_most_a_quarter_of_a_second_for_a_migration(postgres_url, ship):
    address = parse(postgres_url)
    number = ship("op.add_column('symbol', sa.Column('note', sa.Text))")
    slow = "SELECT count(*), pg_sleep(2) FROM symbol"
    stalls = []
    with psycopg.connect(address.libpq, autocommit=True) as reader:
        with ThreadPoolExecutor(2) as pool:
            holder = pool.submit(execute, address, slow)
            held = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            while not reader.execute(held).fetchone():
                assert not holder.done()
            migrator = pool.submit(migrate, address)
            while not migrator.done():
                begun = time.monotonic()
                reader.execute("SELECT count(*) FROM symbol").fetchone()
                stalls.append(time.monotonic() - begun)
    assert migrator.result() == [number]
    assert max(stalls) < 0.25, f"{max(stalls):.3f} s"
    # It did wait: the migrator came while the table was held.
    assert max(stalls) > 0.05


def test_an_old_schema_is_told_from_a_dead_server(url):
    execute(parse(url), "DROP TABLE meta")
    with open_store(url) as store, pytest.raises(StoreError) as caught:
        store.info()
    assert type(caught.value).__name__ == "SchemaBehind"
    assert "prepare" in caught.value.hint


def test_two_migrators_at_once_apply_it_once(empty_url):
    address = parse(empty_url)
    with ThreadPoolExecutor(2) as pool:
        applied = list(pool.map(migrate, [address, address]))
    assert sorted(applied) == [[], revisions.shipped()]
