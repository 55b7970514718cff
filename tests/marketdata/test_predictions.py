"""Predictions on both engines."""

import numpy as np
import pandas as pd
import pytest

from mltrading_marketdata import BadData, UnknownSymbol


def said(n: int = 3, **columns: object) -> pd.DataFrame:
    index = pd.date_range("2020-01-01", periods=n, freq="D", tz="UTC", name="ts")
    values = {"symbol": "ACME", "horizon": 1, "value": np.arange(n) / 4}
    return pd.DataFrame(values | columns, index=index)


def test_predictions_come_back_with_and_without_bounds(store):
    given = said(lower=[-1.0, np.nan, 0.0], upper=[1.0, np.nan, 2.0])
    done = store.upsert_predictions("forest", given, run_id="r1")
    assert (done.inserted, done.updated, done.unchanged) == (3, 0, 0)
    found = store.predictions("forest")
    expected = given.assign(run_id="r1")
    pd.testing.assert_frame_equal(found, expected, check_freq=False, check_dtype=False)


def test_the_same_again_writes_nothing_and_a_correction_replaces(store):
    store.upsert_predictions("forest", said(), run_id="r1")
    assert store.upsert_predictions("forest", said(), run_id="r1").unchanged == 3
    done = store.upsert_predictions("forest", said(2, value=9.0), run_id="r2")
    assert (done.inserted, done.updated) == (0, 2)
    found = store.predictions("forest", "ACME")
    assert found["value"].tolist() == [9, 9, 0.5]
    assert found["run_id"].tolist() == ["r2", "r2", "r1"]


def test_horizons_models_and_symbols_are_kept_apart(store):
    store.upsert_symbols(pd.DataFrame(index=["OTHER"]))
    both = pd.concat([said(1), said(1, symbol="OTHER"), said(1, horizon=5)])
    store.upsert_predictions("forest", both, run_id="r1")
    store.upsert_predictions("line", said(2), run_id="r1")
    assert len(store.predictions("forest")) == 3
    assert store.predictions("forest", "ACME")["horizon"].tolist() == [1, 5]
    models = store.models()
    assert models.index.tolist() == ["forest", "line"]
    assert models["symbols"].tolist() == [2, 1] and models["rows"].tolist() == [3, 2]


def test_a_range_of_predictions(store):
    store.upsert_predictions("forest", said(9), run_id="r1")
    found = store.predictions("forest", "ACME", "2020-01-03", "2020-01-04")
    assert found["value"].tolist() == [0.5, 0.75]


def test_a_model_that_has_said_nothing_is_an_empty_frame(store):
    assert store.predictions("nobody").empty and store.models().empty
    columns = ["symbol", "horizon", "value", "lower", "upper", "run_id"]
    assert list(store.predictions("nobody")) == columns


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (said().drop(columns="value"), "lack the columns"),
        (said(value=np.inf), "not finite"),
        (said(lower=5.0), "outside of its own bounds"),
        (said(horizon=0), "whole numbers from 1"),
        (said(horizon=1.5), "whole numbers from 1"),
        (said(value="up"), "not a number"),
        (said().tz_localize(None), "time-zone-aware"),
    ],
    ids=["no value", "infinite", "bounds", "now", "half a bar", "text", "naive"],
)
def test_what_is_no_prediction_is_refused(store, bad, reason):
    with pytest.raises(BadData, match=reason):
        store.upsert_predictions("forest", bad, run_id="r1")
    assert store.models().empty


def test_a_prediction_for_nobody_is_refused(store):
    with pytest.raises(UnknownSymbol, match="NONE"):
        store.upsert_predictions("forest", said(symbol="NONE"), run_id="r1")
