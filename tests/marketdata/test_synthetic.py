"""Invented bars: always the same, always marked, like real ones in form."""

import pandas as pd
import pytest

from mltrading_marketdata import SourceError
from mltrading_marketdata.quality import examine
from mltrading_marketdata.sources.synthetic import SyntheticSource

NOW = pd.Timestamp("2026-03-20 12:00", tz="UTC")


def source(seed=1, now=NOW):
    return SyntheticSource(seed, now=lambda: now)


def fetch(interval, start=None, end=None, *, symbol="DEMO", **how):
    return source(**how).fetch(symbol, interval, moment(start), moment(end)).frame


def moment(text):
    return None if text is None else pd.Timestamp(text, tz="UTC")


@pytest.mark.parametrize("interval", ["1d", "1h", "5m", "1m"])
def test_every_bar_is_a_good_one(interval):
    frame = fetch(interval, "2026-01-01")
    columns, rejects = examine(frame, interval)
    assert len(columns["ts"]) == len(frame) > 50 and not rejects


@pytest.mark.parametrize("interval", ["1d", "1h", "5m", "1m"])
def test_a_stretch_is_the_same_however_it_is_asked_for(interval):
    whole = fetch(interval, "2025-11-03", "2026-02-01")
    part = fetch(interval, "2025-12-15", "2026-01-15")
    later = fetch(interval, "2025-12-15", "2026-01-15", now=NOW + pd.Timedelta(days=9))
    assert part.equals(whole.loc["2025-12-15":"2026-01-15 00:00"])
    assert later.equals(part) and len(part) > 20


def test_seed_and_symbol_make_the_difference():
    one = fetch("1d")
    assert not one.equals(fetch("1d", seed=2))
    assert not one.equals(fetch("1d", symbol="OTHER"))


def test_minutes_lead_from_the_day_s_open_to_its_close():
    days, minutes = fetch("1d", "2026-03-02", "2026-03-06"), fetch("1m", "2026-03-02")
    of_day = minutes.loc["2026-03-03"]
    assert of_day["open"].iloc[0] == days.loc["2026-03-03", "open"]
    assert of_day["close"].iloc[-1] == days.loc["2026-03-03", "close"]


def test_the_session_is_new_york_s_in_winter_and_summer():
    minutes = fetch("1m", "2026-03-05", "2026-03-11")
    friday, monday = minutes.loc["2026-03-06"], minutes.loc["2026-03-09"]
    assert f"{friday.index[0]:%H:%M} {friday.index[-1]:%H:%M}" == "14:30 20:59"
    assert f"{monday.index[0]:%H:%M} {monday.index[-1]:%H:%M}" == "13:30 19:59"
    assert "2026-03-07" not in minutes.index.strftime("%Y-%m-%d")


def test_what_it_is_stands_in_its_provenance_and_in_the_symbol_s_name():
    made = source(7)
    assert made.provenance == "SYNTHETIC, seed 7"
    assert "SYNTHETIC" in made.fetch("DEMO", "1d", None, None).about["name"]


def test_before_the_origin_it_says_where_it_begins():
    with pytest.raises(SourceError, match="begins with 2000-01-03"):
        fetch("1d", "1999-01-01")


def test_it_wants_to_be_told_names():
    with pytest.raises(SourceError) as caught:
        source().symbols()
    assert "--symbols" in caught.value.hint


@pytest.mark.parametrize("end", ["1999-01-01", "2000-01-03"])
def test_a_range_without_a_bar_is_empty(end):
    assert fetch("1m", "2000-01-03", end).empty
