"""What the first release stored is there after the second one's migrations."""

import struct
import zlib

import numpy as np
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mltrading_marketdata import open_store, revisions
from mltrading_marketdata.codec import COLUMNS, DTYPES
from mltrading_marketdata.migration import migrate
from mltrading_marketdata.tables import block, series, symbol
from mltrading_marketdata.url import Address, parse


def codec_1(columns: dict[str, np.ndarray]) -> bytes:
    """Return a block as the first release wrote it."""
    streams = [
        zlib.compress(np.ascontiguousarray(columns[name], DTYPES[name]).tobytes(), 6)
        for name in COLUMNS
    ]
    return struct.pack("<6I", *map(len, streams)) + b"".join(streams)


def at_first_release(address: Address, minutes: dict[str, np.ndarray]) -> None:
    """Make a database of revision 0001 that holds a series of minutes in a block."""
    n = len(minutes["ts"])
    if address.path:
        address.path.parent.mkdir()
    engine = sa.create_engine(address.sqlalchemy)
    config = Config()
    config.set_main_option("script_location", str(revisions.MIGRATIONS))
    with engine.begin() as c:
        config.attributes["connection"] = c
        command.upgrade(config, "0001")
        texts = dict.fromkeys(
            ("name", "exchange", "currency", "sector", "industry"), ""
        )
        c.execute(symbol.insert().values(id=1, ticker="ACME", **texts))
        row = {"id": 1, "symbol_id": 1, "interval": "1m", "source": "x", "version": 5}
        ends = {"n": n, "first_ts": 0, "last_ts": int(minutes["ts"][-1])}
        c.execute(series.insert().values(**row, **ends))
        key = {"series_id": 1, "period": 0, "n": n, "codec": 1}
        c.execute(block.insert().values(**key, payload=codec_1(minutes)))
    engine.dispose()


def test_bars_of_the_first_release_are_there_after_the_second(empty_url):
    address = parse(empty_url)
    prices = np.round(np.linspace(10, 20, 3000), 2)
    minutes = dict.fromkeys(("open", "high", "low", "close"), prices)
    minutes["ts"] = np.arange(3000, dtype=np.int64) * 60_000_000
    minutes["volume"] = np.arange(3000)
    at_first_release(address, minutes)
    assert migrate(address) == revisions.shipped()[1:]
    with open_store(empty_url) as store:
        found = store.bars("ACME", interval="1m")
        assert np.array_equal(found["close"], prices)
        assert len(store.candles("ACME", interval="1m", max_points=60)) == 50
