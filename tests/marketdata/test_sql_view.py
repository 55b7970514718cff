"""A person reads bars in plain SQL on PostgreSQL."""

import numpy as np
import pandas as pd
import psycopg
import pytest

from mltrading_marketdata import open_store
from mltrading_marketdata.codec import encode

pytestmark = pytest.mark.integration


def test_the_view_shows_what_the_store_holds(postgres_url, bars):
    awkward = bars(400)
    # Decimals of two digits, float32, any float64, and a volume of every width.
    awkward["high"] = np.float32(30_000.1)
    awkward["low"] = np.linspace(0.1, 0.3, 400) / 3
    awkward["volume"] = np.arange(400) ** 5
    awkward["open"] = awkward["close"] = 12.34
    with open_store(postgres_url) as store:
        store.upsert_symbols(pd.DataFrame(index=["ACME"]))
        store.upsert_bars("ACME", "1d", awkward, source="test")
        store.upsert_bars("ACME", "1m", bars(3000, freq="min"), source="test")
        stored = store.bars("ACME", adjust="none")
    with psycopg.connect(postgres_url) as c:
        rows = c.execute(
            "SELECT ts, open, high, low, close, volume FROM bars"
            " WHERE symbol = 'ACME' AND interval = '1d' ORDER BY ts"
        ).fetchall()
        minutes = c.execute(
            "SELECT count(*), max(close) FROM bars WHERE interval = '1m'"
        ).fetchone()
    shown = pd.DataFrame(rows, columns=["ts", *stored.columns]).set_index("ts")
    shown.index = pd.DatetimeIndex(shown.index).tz_convert("UTC")
    pd.testing.assert_frame_equal(shown, stored, check_index_type=False, rtol=0, atol=0)
    assert minutes == (3000, 3009.0)


def test_floats_of_every_kind_are_decoded(postgres_url):
    odd = np.array([1e300, -1e-300, 0.1 + 0.2, np.inf, -np.inf, np.nan, -7.0])
    payload = encode({"x": odd})
    with psycopg.connect(postgres_url) as c:
        shown = c.execute("SELECT chunk_column(%s, 0)", [payload]).fetchone()
    assert np.array_equal(np.array(shown[0]), odd, equal_nan=True)
