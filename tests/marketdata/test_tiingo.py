"""Tiingo against a double that gives its published answers, and that misbehaves."""

from pathlib import Path

import pandas as pd
import pytest

from mltrading_marketdata import SourceClosed, SourceDown, SourceError
from mltrading_marketdata.adjustment import Action
from mltrading_marketdata.sources.patience import Patience
from mltrading_marketdata.sources.tiingo import TiingoSource
from tests.doubles.provider import Provider, serving

ANSWERS = Path(__file__).parent / "answers"
KEY = "0123456789abcdef-secret"
PRICES = "/tiingo/daily/ACME/prices"


@pytest.fixture
def provider():
    with serving() as double:
        double.answers = {
            PRICES: (200, (ANSWERS / "tiingo-acme.json").read_bytes()),
            "/tiingo/daily/ACME": (
                200,
                (ANSWERS / "tiingo-acme-about.json").read_bytes(),
            ),
            "/tiingo/daily/NOPE/prices": (
                404,
                (ANSWERS / "tiingo-unknown.json").read_bytes(),
            ),
        }
        yield double


@pytest.fixture
def waits():
    """The seconds that were slept; the clock is moved on by them."""
    return []


@pytest.fixture
def source(provider: Provider, waits: list[float]):
    def patience():
        return Patience(60, clock=lambda: sum(waits), sleep=waits.append)

    environ = {"TIINGO_API_KEY": KEY}
    return TiingoSource(environ, base=provider.url, patience=patience, answer_s=0.2)


def fetch(source, symbol="ACME", start=None, end=None):
    return source.fetch(symbol, "1d", start, end)


def moment(day):
    return pd.Timestamp(day, tz="UTC")


@pytest.mark.integration
def test_bars_are_as_traded_on_their_session_date(source):
    raw = fetch(source)
    assert raw.frame.index[0] == moment("2024-06-03")
    assert raw.frame["close"].tolist() == [100, 102.86, 52.02, 51.1, 52.77]
    assert raw.frame["volume"].tolist() == [1000, 1200, 2500, 2100, 2300]


@pytest.mark.integration
def test_splits_and_dividends_come_along(source):
    day = {name: moment(name).value // 1000 for name in ("2024-06-05", "2024-06-06")}
    assert fetch(source).actions == [
        Action(day["2024-06-05"], "split", 2.0),
        Action(day["2024-06-06"], "dividend", 0.25),
    ]


@pytest.mark.integration
def test_the_first_time_it_says_what_the_share_is(source):
    assert fetch(source).about["name"] == "Acme Widgets Inc"
    assert fetch(source, start=moment("2024-06-03")).about == {}


@pytest.mark.integration
def test_only_the_range_is_asked_for_and_given(source, provider):
    raw = fetch(source, start=moment("2024-06-04"), end=moment("2024-06-05"))
    assert len(raw.frame) == 2
    assert provider.asked[0].query == {
        "startDate": "2024-06-04",
        "endDate": "2024-06-05",
    }


@pytest.mark.integration
def test_the_key_travels_in_a_header_and_nowhere_else(source, provider):
    provider.misbehave = [403]
    provider.answers[PRICES] = (403, f"no such key: {KEY}".encode())
    with pytest.raises(SourceClosed) as caught:
        fetch(source)
    (asked,) = provider.asked
    assert asked.headers["Authorization"] == f"Token {KEY}"
    assert KEY not in f"{asked.path}{asked.query}{caught.value}{caught.value.hint}"


@pytest.mark.integration
def test_a_body_that_repeats_the_key_does_not_show_it(source, provider):
    provider.answers[PRICES] = (400, f'{{"detail": "bad {KEY}"}}'.encode())
    with pytest.raises(SourceError, match=r"HTTP 400: bad \*\*\*"):
        fetch(source)


@pytest.mark.integration
def test_a_redirect_does_not_carry_the_key_away(source, provider):
    provider.misbehave = [(302, {"Location": f"{provider.url}/elsewhere"})]
    with pytest.raises(SourceError, match="HTTP 302"):
        fetch(source)
    assert [one.path for one in provider.asked] == [PRICES]


def test_a_key_never_goes_out_without_tls():
    with pytest.raises(SourceError, match="not https"):
        TiingoSource({"TIINGO_API_KEY": KEY}, base="http://example.org")


def test_without_a_key_it_says_which_variable_is_missing():
    with pytest.raises(SourceClosed, match="TIINGO_API_KEY is not set") as caught:
        TiingoSource({})
    assert "export TIINGO_API_KEY" in caught.value.hint


@pytest.mark.integration
def test_retry_after_is_waited_for(source, provider, waits):
    provider.misbehave = [(429, {"Retry-After": "7"})]
    assert len(fetch(source).frame) == 5 and waits == [7]


@pytest.mark.integration
def test_a_wait_beyond_the_deadline_is_not_begun(source, provider, waits):
    provider.misbehave = [(429, {"Retry-After": "3600"})]
    with pytest.raises(SourceClosed, match="asks to wait") as caught:
        fetch(source)
    assert waits == [] and "goes on where it stopped" in caught.value.hint


@pytest.mark.integration
def test_a_limit_told_with_status_200_is_a_limit(source, provider, waits):
    told = (ANSWERS / "tiingo-limit.txt").read_bytes()
    provider.answers[PRICES] = (200, told)
    with pytest.raises(SourceClosed, match="run over your 500 symbol"):
        fetch(source)
    assert waits == [1, 2, 4, 8, 16]


@pytest.mark.integration
@pytest.mark.parametrize("fault", [500, 503, "cut", "html", "empty", "silent"])
def test_what_goes_wrong_once_is_asked_again(source, provider, waits, fault):
    provider.misbehave = [fault]
    assert len(fetch(source).frame) == 5 and waits == [1]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (500, "HTTP 500"),
        ("cut", "was cut"),
        ("html", "not JSON: <!DOCTYPE"),
        ("empty", "not JSON: nothing"),
        ("silent", "timed out"),
    ],
)
def test_what_stays_wrong_is_no_answer_and_no_empty_frame(
    source, provider, fault, said
):
    provider.misbehave = [fault] * 10
    with pytest.raises(SourceDown, match=said):
        fetch(source)


@pytest.mark.integration
def test_an_answer_that_trickles_has_an_end(provider):
    provider.misbehave = ["trickle"]
    source = TiingoSource(
        {"TIINGO_API_KEY": KEY}, base=provider.url, within_s=0.2, answer_s=5
    )
    with pytest.raises(SourceDown, match="took too long"):
        fetch(source)


@pytest.mark.integration
def test_an_unknown_symbol_is_an_error_of_that_symbol(source):
    with pytest.raises(SourceError, match="NOPE' not found") as caught:
        fetch(source, "NOPE")
    assert type(caught.value) is SourceError


@pytest.mark.integration
def test_no_bar_where_there_should_be_some_is_an_error(source, provider):
    provider.answers[PRICES] = (200, b"[]")
    with pytest.raises(SourceError, match="though it has some"):
        fetch(source)


@pytest.mark.integration
def test_no_bar_after_the_last_one_is_a_true_answer(source, provider):
    provider.answers[PRICES] = (200, b"[]")
    raw = fetch(source, start=moment("2024-06-10"))
    assert raw.frame.empty and raw.frame.index.tz is not None


@pytest.mark.integration
@pytest.mark.parametrize(
    "body", [b'{"detail": "hello"}', b"[1, 2]", b'[{"date": "2024-06-03"}]', b"7"]
)
def test_json_that_is_no_prices_is_an_error(source, provider, body):
    provider.answers[PRICES] = (200, body)
    with pytest.raises(SourceError, match="can't be read"):
        fetch(source, start=moment("2024-06-03"))


@pytest.mark.integration
def test_other_intervals_are_refused_with_what_there_is(source):
    with pytest.raises(SourceError) as caught:
        source.fetch("ACME", "1m", None, None)
    assert "--source yahoo" in caught.value.hint
