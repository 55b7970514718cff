"""Feature sets on both engines."""

import numpy as np
import pandas as pd
import pytest

from mltrading_marketdata import BadData, StoreError, UnknownSymbol


def frame(n: int, start: str = "2019-11-01", **columns: float) -> pd.DataFrame:
    index = pd.date_range(start, periods=n, freq="D", tz="UTC", name="ts")
    return pd.DataFrame(
        {name: np.arange(n) + value for name, value in columns.items()}, index=index
    )


def test_features_come_back_over_years_with_what_was_not_known(store):
    given = frame(500, rsi=0.1, momentum=-3.0)
    given.iloc[:14, 0] = np.nan
    done = store.upsert_features("technical", "ACME", given, version=1)
    assert (done.inserted, done.updated, done.unchanged) == (500, 0, 0)
    pd.testing.assert_frame_equal(
        store.features("technical", "ACME"), given, check_freq=False
    )


def test_the_same_again_writes_nothing_and_a_change_is_counted(store):
    given = frame(10, rsi=0.0)
    given.iloc[0, 0] = np.nan
    stamp = store.upsert_features("technical", "ACME", given, version=1).version
    again = store.upsert_features("technical", "ACME", given, version=1)
    assert (again.written, again.unchanged, again.version) == (0, 10, stamp)
    given.iloc[3:5, 0] = 7.5
    done = store.upsert_features("technical", "ACME", given.iloc[3:5], version=1)
    assert (done.inserted, done.updated) == (0, 2) and done.version > stamp
    assert store.features("technical", "ACME")["rsi"].tolist()[3:6] == [7.5, 7.5, 5.0]


def test_a_range_and_some_columns(store):
    store.upsert_features("technical", "ACME", frame(100, a=0.0, b=1.0), version=1)
    found = store.features(
        "technical", "ACME", "2019-12-30", "2020-01-02", columns=["b"]
    )
    assert list(found) == ["b"] and found["b"].tolist() == [60, 61, 62, 63]


def test_versions_live_side_by_side_and_the_newest_is_the_default(store):
    store.upsert_features("technical", "ACME", frame(3, a=0.0), version=1)
    store.upsert_features("technical", "ACME", frame(3, a=9.0, b=1.0), version=2)
    assert list(store.features("technical", "ACME")) == ["a", "b"]
    assert store.features("technical", "ACME", version=1)["a"].tolist() == [0, 1, 2]
    sets = store.feature_sets()
    assert sets["version"].tolist() == [1, 2]
    assert sets["columns"].tolist() == [("a",), ("a", "b")]


def test_other_columns_under_one_version_are_refused(store):
    store.upsert_features("technical", "ACME", frame(3, a=0.0), version=1)
    with pytest.raises(BadData, match='has \\["a"\\], not \\["b"\\]') as refused:
        store.upsert_features("technical", "ACME", frame(3, b=0.0), version=1)
    assert "raise version=" in refused.value.hint


def test_the_last_of_rows_with_one_time_wins(store):
    given = pd.concat([frame(2, a=0.0), frame(1, a=5.0)])
    store.upsert_features("technical", "ACME", given, version=1)
    assert store.features("technical", "ACME")["a"].tolist() == [5, 1]


def test_what_is_not_there_is_named(store):
    store.upsert_features("technical", "ACME", frame(3, a=0.0), version=1)
    with pytest.raises(StoreError, match="no feature set 'other'"):
        store.features("other", "ACME")
    with pytest.raises(StoreError, match=r"has no \['z'\]"):
        store.features("technical", "ACME", columns=["z"])
    with pytest.raises(UnknownSymbol):
        store.features("technical", "NONE")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (frame(2, a=0.0).tz_localize(None), "time-zone-aware"),
        (frame(2), "at least one column"),
        (frame(2, ts=1.0), 'must differ and not be "ts"'),
        (frame(2, a=0.0).assign(a="x"), "not a number"),
    ],
    ids=["naive times", "no column", "a column named ts", "text"],
)
def test_a_frame_that_cannot_be_read_is_refused(store, bad, said):
    with pytest.raises(BadData, match=said):
        store.upsert_features("technical", "ACME", bad, version=1)
