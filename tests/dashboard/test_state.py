import itertools
import random
import string

import pytest

from mltrading_dashboard.charts.study import ALLOWED, MOST, MOST_PANELS, USUAL, study
from mltrading_dashboard.state import (
    KINDS,
    RANGES,
    SORTS,
    ViewState,
    parse,
    to_url,
)


def parsed(url):
    path, _, query = url.partition("?")
    return parse(path, f"?{query}" if query else "")


@pytest.mark.parametrize("theme", [None, "light", "dark"])
@pytest.mark.parametrize("page", ["overview", "charts"])
def test_every_view_survives_its_url(page, theme):
    chosen = [(), USUAL[:1], USUAL, tuple(map(study, ("bb.30.3", "rsi.7")))]
    sectors = [None, "Health Care", "A&B=C?/#", "Ünïcode 100%"]
    for span, kind, studies, sort, sector in itertools.product(
        RANGES[page], KINDS, chosen, SORTS, sectors
    ):
        symbol = "BRK.B" if page == "charts" else None
        view = ViewState(page, symbol, span, kind, studies, sort, sector, theme)
        assert parsed(to_url(view)) == view


@pytest.mark.parametrize("theme", [None, "light"])
@pytest.mark.parametrize("span", RANGES["compare"])
def test_every_comparison_survives_its_url(span, theme):
    for symbols in ((), ("AAPL",), ("BRK.B", "A&B=C?/#", "ÜNÏ CODE 100%")):
        view = ViewState("compare", range=span, theme=theme, symbols=symbols)
        assert parsed(to_url(view)) == view


def test_symbols_are_read_once_each_and_in_order():
    view = parse("/compare", "?symbols=msft,, aapl ,MSFT&range=3y")
    assert (view.symbols, view.range) == (("MSFT", "AAPL"), "3Y")
    assert to_url(view) == "/compare?symbols=MSFT,AAPL&r=3Y"
    assert parse("/", "?symbols=AAPL").symbols == ()


def test_more_symbols_than_can_be_compared_are_named():
    view = parse("/compare", "?symbols=A,B,C,D,E,F,G,H")
    (problem,) = view.problems
    assert view.symbols == ("A", "B", "C", "D", "E", "F")
    assert (problem.name, problem.value) == ("symbols", "G,H")


def test_any_text_parses_and_its_url_is_stable():
    rng = random.Random(1)
    letters = string.printable + "%2F%00éß🙂&=?#/"
    for _ in range(2_000):
        path = "/" + "".join(rng.choices(letters, k=rng.randrange(30)))
        search = "?" + "".join(rng.choices(letters, k=rng.randrange(60)))
        url = to_url(parse(path, search))
        assert to_url(parsed(url)) == url


@pytest.mark.parametrize("junk", [None, 3, [], {}, b"/", float("nan")])
def test_what_is_not_text_is_a_missing_page_and_an_empty_query(junk):
    assert parse(junk, junk) == ViewState("missing", range="1Y")


@pytest.mark.parametrize(
    ("path", "page", "symbol"),
    [
        ("/", "overview", None),
        ("", "overview", None),
        ("/charts", "charts", None),
        ("/charts/", "charts", None),
        ("/charts/aapl", "charts", "AAPL"),
        ("/charts/BRK%2FB", "charts", "BRK/B"),
        ("/charts/a/b", "missing", None),
        ("/compare/", "compare", None),
        ("/compare/AAPL", "missing", None),
        ("/status", "status", None),
        ("/status/x", "missing", None),
        ("/admin.php", "missing", None),
    ],
)
def test_the_path_names_page_and_symbol(path, page, symbol):
    view = parse(path, "")
    assert (view.page, view.symbol) == (page, symbol)


def test_defaults_make_a_bare_url():
    assert to_url(ViewState()) == "/"
    assert to_url(ViewState("charts", "AAPL", "1Y")) == "/charts/AAPL"


def test_values_are_read_in_any_case():
    assert parse("/charts/A", "?r=3y&type=OHLC").range == "3Y"


@pytest.mark.parametrize("name", ["r", "type", "sort", "theme", "ind"])
def test_a_bad_value_is_reported_and_replaced(name):
    view = parse("/charts/A", f"?{name}=nonsense")
    (problem,) = view.problems
    assert (problem.name, problem.value) == (name, "nonsense")
    assert problem.allowed


def test_more_fields_than_a_link_has_are_not_read():
    assert parse("/", "?" + "&".join(f"a{i}=1" for i in range(99))) == ViewState()


def chosen(query):
    view = parse("/charts/A", f"?ind={query}")
    return [one.text for one in view.studies], view.problems


def test_indicators_are_read_with_their_lengths_or_the_usual_ones():
    assert chosen("RSI, bb.30.3,ema") == (["ema.20", "bb.30.3", "rsi.14"], ())
    assert chosen("none") == ([], ())
    assert chosen("sma.20,sma.20") == (["sma.20"], ())
    assert chosen(",".join(ALLOWED))[1] == ()


@pytest.mark.parametrize(
    "text",
    [
        "rsi.1",
        "rsi.401",
        "rsi.0014",
        "rsi.14.3",
        "rsi.-3",
        "rsi.",
        "rsi.1e2",
        "rsi.١٤",
        "bb.20",
        "bb.20.9",
        "macd.26.12.9",
        "macd.12.12.9",
        "zigzag.5",
        ".",
    ],
)
def test_an_indicator_that_is_not_one_is_named_and_the_others_stay(text):
    kept, (problem,) = chosen(f"sma.50,{text}")
    assert kept == ["sma.50"]
    assert (problem.name, problem.value) == ("ind", text)


def test_more_indicators_than_a_chart_holds_are_named():
    panels = [f"rsi.{n}" for n in range(2, 9)]
    kept, (problem,) = chosen(",".join(panels))
    assert len(kept) == MOST_PANELS and problem.value == ",".join(panels[MOST_PANELS:])
    kept, (problem,) = chosen(",".join(f"sma.{n}" for n in range(2, 99)))
    assert len(kept) == MOST
