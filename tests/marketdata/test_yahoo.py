"""Yahoo through the real yfinance, whose connections end at a double on loopback."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest
import requests
import yfinance

from mltrading_marketdata import SourceClosed, SourceDown, SourceError
from mltrading_marketdata.adjustment import Action, adjusted
from mltrading_marketdata.quality import examine
from mltrading_marketdata.sources import open_source
from mltrading_marketdata.sources.patience import Patience
from mltrading_marketdata.sources.yahoo import YahooSource
from tests.doubles.provider import Provider, serving

ANSWERS = Path(__file__).parent / "answers"
CHART = "/v8/finance/chart/ACME"
NOW = pd.Timestamp("2024-06-07 21:00", tz="UTC")


class ToLoopback(requests.adapters.HTTPAdapter):
    """Bring what is meant for Yahoo to the double."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base

    def send(self, request, **options):
        assert re.search(r"\byahoo\.com$", urlsplit(request.url).hostname)
        parts = urlsplit(request.url)
        request.url = f"{self.base}{parts.path or '/'}?{parts.query}"
        # yfinance waits ten seconds and more for some of what it asks.
        return super().send(request, **options | {"timeout": 0.2})


@pytest.fixture
def provider(monkeypatch, tmp_path):
    # What yfinance keeps between calls and in the user's cache folder.
    yfinance.set_tz_cache_location(str(tmp_path))
    yfinance.data.YfData.cache_get.cache_clear()
    with serving() as double:
        double.answers = {
            "/v1/test/getcrumb": (200, b"crumb"),
            CHART: (200, (ANSWERS / "yahoo-acme.json").read_bytes()),
            "/v8/finance/chart/NOPE": (
                404,
                (ANSWERS / "yahoo-unknown.json").read_bytes(),
            ),
        }
        yield double


@pytest.fixture
def waits():
    return []


@pytest.fixture
def source(provider: Provider, waits):
    def patience():
        return Patience(10, clock=lambda: sum(waits), sleep=waits.append)

    with requests.Session() as session:
        session.mount("https://", ToLoopback(provider.url))
        yield YahooSource(
            now=lambda: NOW, session=session, patience=patience, answer_s=0.5
        )


def fetch(source, symbol="ACME", start=None, end=None, interval="1d"):
    return source.fetch(symbol, interval, start, end)


def moment(text):
    return pd.Timestamp(text, tz="UTC")


@pytest.mark.integration
def test_splits_are_undone_so_that_bars_are_as_traded(source):
    raw = fetch(source)
    assert raw.frame["close"].tolist() == [100, 102.86, 52.02, 51.1, 52.77]
    assert raw.frame["volume"].tolist() == [1000, 1200, 2500, 2100, 2300]
    assert raw.frame.index[0] == moment("2024-06-03")


@pytest.mark.integration
def test_splits_and_dividends_are_as_on_their_day(source):
    days = [moment(day).value // 1000 for day in ("2024-06-05", "2024-06-06")]
    assert fetch(source).actions == [
        Action(days[0], "split", 2.0),
        Action(days[1], "dividend", 0.25),
    ]


@pytest.mark.integration
def test_adjusting_again_gives_what_yahoo_shows(source):
    raw = fetch(source)
    columns, rejects = examine(raw.frame, "1d")
    shown = adjusted(columns, raw.actions, "split")["close"].tolist()
    assert shown == [50, 51.43, 52.02, 51.1, 52.77] and not rejects


@pytest.mark.integration
def test_an_end_before_a_split_does_not_hide_it(source):
    raw = fetch(source, start=moment("2024-06-03"), end=moment("2024-06-04"))
    assert raw.frame["close"].tolist() == [100, 102.86]
    assert len(raw.actions) == 2


@pytest.mark.integration
def test_it_says_what_the_share_is(source):
    about = fetch(source).about
    assert about == {
        "name": "Acme Widgets Inc.",
        "exchange": "NASDAQ",
        "currency": "USD",
    }


@pytest.mark.integration
def test_minutes_are_utc(source, provider):
    provider.answers[CHART] = (200, (ANSWERS / "yahoo-acme-1m.json").read_bytes())
    raw = fetch(source, interval="1m", start=moment("2024-06-07"))
    assert raw.frame.index[0] == moment("2024-06-07 13:30")
    assert raw.frame["close"].tolist() == [51.3, 51.4, 51.41]


@pytest.mark.integration
def test_minutes_are_asked_for_in_weeks(source, provider):
    provider.answers[CHART] = (200, (ANSWERS / "yahoo-acme-1m.json").read_bytes())
    fetch(source, interval="1m", start=moment("2024-05-20"))
    asked = [one.query for one in provider.asked if "period1" in one.query]
    spans = [int(one["period2"]) - int(one["period1"]) for one in asked]
    assert len(spans) == 3 and max(spans[:2]) == 7 * 86400


@pytest.mark.integration
def test_before_yahoo_s_reach_it_is_an_error_with_the_way_out(source):
    with pytest.raises(SourceError, match="no 5m bars of ACME before") as caught:
        fetch(source, interval="5m", start=moment("2024-01-01"))
    assert "--start 2024-04-1" in caught.value.hint


@pytest.mark.integration
def test_hours_are_asked_for_at_once_as_far_back_as_yahoo_keeps_them(source, provider):
    provider.answers[CHART] = (200, (ANSWERS / "yahoo-acme-1m.json").read_bytes())
    fetch(source, interval="1h", start=moment("2023-01-01"))
    asked = [one.query for one in provider.asked if "period1" in one.query]
    assert [one["interval"] for one in asked] == ["1h"]
    with pytest.raises(SourceError, match="no 1h bars of ACME before"):
        fetch(source, interval="1h", start=moment("2020-01-01"))


@pytest.mark.integration
def test_a_limit_is_no_empty_frame(source, provider, waits):
    provider.misbehave = [429] * 50
    with pytest.raises(SourceClosed, match="Yahoo asks to wait"):
        fetch(source)
    assert waits == [1, 2, 4]


@pytest.mark.integration
def test_a_limit_that_passes_is_waited_for(source, provider, waits):
    provider.misbehave = [429] * 50
    source._patience = lambda: Patience(
        10, sleep=lambda seconds: (waits.append(seconds), provider.misbehave.clear())
    )
    assert len(fetch(source).frame) == 5 and waits == [1]


@pytest.mark.integration
def test_an_unknown_symbol_is_an_error_with_yahoo_s_words(source):
    with pytest.raises(SourceError, match="NOPE") as caught:
        fetch(source, "NOPE")
    assert type(caught.value) is SourceError


@pytest.mark.integration
@pytest.mark.parametrize("fault", [500, "html", "empty", "cut", "silent"])
def test_what_stays_wrong_is_no_answer(source, provider, fault):
    provider.misbehave = [fault] * 60
    with pytest.raises(SourceDown, match="Yahoo gave no answer"):
        fetch(source)


@pytest.mark.integration
@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"chart": {"result": [{}]}}'])
def test_json_that_is_no_chart_is_an_error(source, provider, body):
    provider.answers[CHART] = (200, body)
    with pytest.raises(SourceError):
        fetch(source)


@pytest.mark.integration
@pytest.mark.parametrize("symbol", ["", "../v1", "A B", "A" * 30])
def test_what_can_t_be_a_symbol_is_not_asked_for(source, provider, symbol):
    with pytest.raises(SourceError, match="no symbol of Yahoo's"):
        fetch(source, symbol)
    assert provider.asked == []


def test_without_yfinance_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "yfinance", None)
    with pytest.raises(SourceError, match="yfinance") as caught:
        open_source("yahoo", {})
    assert "mltrading-marketdata[yahoo]" in caught.value.hint
