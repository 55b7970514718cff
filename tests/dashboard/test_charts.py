import copy
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from mltrading_dashboard import assets
from mltrading_dashboard.charts.arrays import packed, unpacked
from mltrading_dashboard.charts.axis import MOST_TICKS, date_ticks
from mltrading_dashboard.charts.bucket import MOST_BARS, bucket_size, bucketed
from mltrading_dashboard.charts.performance import performance_figure
from mltrading_dashboard.charts.price import MARGIN, Window, price_figure
from mltrading_dashboard.charts.sector import sector_figure
from mltrading_dashboard.charts.sparkline import sparkline
from mltrading_dashboard.charts.study import (
    ALLOWED,
    OFFERED,
    USUAL,
    study,
    with_studies,
)
from mltrading_dashboard.charts.theme import DARK, LIGHT, THEMES
from tests.dashboard.bars import made_bars


def decoded(figure):
    """Return the figure with its packed arrays as lists, for plotly's validation."""

    def walk(part):
        if isinstance(part, dict) and set(part) == {"dtype", "bdata"}:
            return unpacked(part).tolist()
        if isinstance(part, dict):
            return {key: walk(value) for key, value in part.items()}
        return [walk(item) for item in part] if isinstance(part, list) else part

    return walk(copy.deepcopy(figure))


def price(bars, window=None, kind="candles", studies=USUAL, theme=DARK):
    window = window or Window.last(len(bars), len(bars) - 252)
    return price_figure(bars, window, kind=kind, studies=studies, theme=theme)


def trace(figure, kind):
    return next(t for t in figure["data"] if t["type"] == kind)


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
@pytest.mark.parametrize("kind", ["candles", "ohlc", "line"])
@pytest.mark.parametrize("studies", [(), USUAL, OFFERED], ids=len)
def test_plotly_accepts_the_price_figure(bars, kind, theme, studies):
    go.Figure(decoded(price(bars, kind=kind, theme=theme, studies=studies)))


def test_plotly_accepts_the_other_figures(bars):
    closes = {"A": bars["close"], "B": bars["close"] * 2}
    colours = {"A": "#111111", "B": "#222222"}
    go.Figure(decoded(performance_figure(closes, colours, LIGHT)))
    go.Figure(decoded(sector_figure(pd.Series(["x", "y", "x"]), "x", LIGHT)))


@pytest.mark.parametrize("count", [1, 2, 9, 30, 440, 5_000, 50_000])
def test_never_more_candles_than_a_browser_draws_quickly(count):
    figure = price(made_bars(count), Window.last(count, 0))
    drawn = len(unpacked(trace(figure, "candlestick")["x"]))
    assert 1 <= drawn <= MOST_BARS + 1


def test_rising_bars_are_filled_and_falling_bars_are_hollow(bars):
    candles = trace(price(bars), "candlestick")
    assert candles["increasing"]["fillcolor"] == DARK.up
    assert candles["decreasing"]["fillcolor"] == DARK.panel


def test_volume_is_split_into_rising_and_falling_without_loss(bars):
    up, down = (t for t in price(bars)["data"] if t["type"] == "bar")
    drawn = np.concatenate([unpacked(up["y"]), unpacked(down["y"])])
    assert drawn.sum() == pytest.approx(bars["volume"].iloc[-len(drawn) :].sum())


def test_the_view_reaches_from_low_to_high(bars):
    low, high = price(bars)["layout"]["yaxis"]["range"]
    seen = bars.iloc[-252:]
    assert low < seen["low"].min() and seen["high"].max() < high


def test_an_average_needs_its_bars(bars):
    figure = price(bars.iloc[:30], Window.last(30, 0))
    found = {name: len(unpacked(t["x"])) for name, t in lines(figure).items()}
    assert found == {"SMA 20": 11, "SMA 50": 0}


def lines(figure):
    return {t["name"]: t for t in figure["data"] if t["type"] == "scatter"}


@pytest.mark.parametrize("text", ALLOWED)
@pytest.mark.parametrize("window", [Window(20_000, 20_100), Window(0, 50_000)])
def test_an_indicator_does_not_depend_on_the_view(text, window):
    bars, one = made_bars(50_000), study(text)
    whole = with_studies(bars, (one,), bucketed(bars, 0, len(bars) - 1, 1))
    first, last = window.rows(len(bars), MARGIN)
    size = bucket_size(last - first + 1)
    for place, name in enumerate(one.columns):
        if name.endswith("histogram"):
            continue
        title = f"{one.title} {one.kind.lines[place]}".strip()
        line = lines(price(bars, window, studies=(one,)))[title]
        rows = unpacked(line["x"]) + (size - 1) / 2
        inside = rows < len(bars) - size
        expected = whole[name].to_numpy()[rows[inside].astype(int)]
        assert unpacked(line["y"])[inside] == pytest.approx(expected, rel=1e-4)


def test_only_the_bars_in_view_and_their_lead_are_looked_at():
    bars, one = made_bars(5_000), study("rsi.14")
    spoilt = bars.copy()
    spoilt.iloc[: 4_000 - one.lead] = np.nan
    drawn = bucketed(bars, 4_000, 4_999, 1)
    whole = with_studies(bars, (one,), drawn)[one.columns[0]]
    part = with_studies(spoilt, (one,), drawn)[one.columns[0]]
    assert part.to_numpy() == pytest.approx(whole.to_numpy())


def test_panels_lie_below_the_prices_and_do_not_overlap(bars):
    studies = tuple(one for one in OFFERED if one.kind.panel)
    layout = price(bars, studies=studies)["layout"]
    axes = ["yaxis", *(f"yaxis{3 + i}" for i in range(len(studies)))]
    edges = [edge for axis in axes for edge in reversed(layout[axis]["domain"])]
    assert edges == sorted(edges, reverse=True) and edges[0] == 1 and edges[-1] >= 0
    assert layout["xaxis"]["anchor"] == "y6"


def test_without_panels_the_prices_have_the_whole_height(bars):
    layout = price(bars)["layout"]
    assert "domain" not in layout["yaxis"] and "yaxis3" not in layout


def test_an_oscillator_keeps_its_scale_and_another_fits_the_view(bars):
    layout = price(bars, studies=(study("rsi.14"), study("atr.14")))["layout"]
    assert layout["yaxis3"]["range"] == [0, 100]
    low, high = layout["yaxis4"]["range"]
    assert 0 < low < high


def test_a_panel_that_has_too_few_bars_says_so(bars):
    figure = price(bars.iloc[:12], Window.last(12, 0), studies=(study("rsi.14"),))
    assert "needs more bars" in figure["layout"]["annotations"][1]["text"]


def test_each_indicator_over_the_prices_has_a_colour_of_its_own(bars):
    over = tuple(one for one in OFFERED if not one.kind.panel)
    found = lines(price(bars, studies=over))
    colours = {name: line["line"]["color"] for name, line in found.items()}
    assert colours.pop("Bollinger 20 2 lower") == colours["Bollinger 20 2 upper"]
    del colours["Bollinger 20 2 middle"]
    assert len(set(colours.values())) == len(colours) == len(over)


@pytest.mark.parametrize(
    "window",
    [Window(-1e8, 1e8), Window(1e8, 2e8), Window(-2e8, -1e8), Window(5, 5)],
)
def test_a_window_outside_the_bars_is_moved_to_them(bars, window):
    drawn = unpacked(trace(price(bars, window), "candlestick")["x"])
    assert 0 <= drawn.min() and drawn.max() <= len(bars) - 1


def test_a_bucket_keeps_first_open_extremes_last_close_and_all_volume(bars):
    joined = bucketed(bars, 0, 9, 5)
    part = bars.iloc[5:10]
    assert joined["open"].iloc[1] == part["open"].iloc[0]
    assert joined["high"].iloc[1] == part["high"].max()
    assert joined["low"].iloc[1] == part["low"].min()
    assert joined["close"].iloc[1] == part["close"].iloc[-1]
    assert joined["volume"].iloc[1] == part["volume"].sum()
    assert joined["row"].tolist() == [2.0, 7.0]


def test_a_bar_stays_in_its_bucket_when_the_view_moves(bars):
    one, other = bucketed(bars, 100, 200, 7), bucketed(bars, 103, 200, 7)
    assert one["row"].tolist()[1:] == pytest.approx(other["row"].tolist()[1:])


def test_bucket_sizes_never_exceed_the_limit():
    for count in range(1, 5_000):
        assert -(-count // bucket_size(count)) <= MOST_BARS


@pytest.mark.parametrize("count", [2, 5, 21, 63, 126, 252, 756, 3270, 20_000])
def test_dates_are_labelled_without_crowding(count):
    index = made_bars(count).index
    rows, labels = date_ticks(index, (0, count - 1), (0, count - 1))
    assert len(rows) == len(labels) == len(set(labels)) <= MOST_TICKS
    assert count < 3 or rows


def test_a_year_is_labelled_by_months(bars):
    _, labels = date_ticks(bars.index, (348, 599), (348, 599))
    assert labels[0] == "Apr 2012" and labels[-1] == "Mar 2013"


def test_packed_arrays_come_back():
    assert unpacked(packed([1.5, 2.5])).tolist() == [1.5, 2.5]


def test_a_sparkline_has_the_colour_of_its_direction():
    assert DARK.up in unquote(sparkline([1, 2], DARK))
    assert DARK.down in unquote(sparkline([2, 1], DARK))
    assert len(sparkline(range(5_000), DARK)) < 2_500


def test_labels_at_the_line_ends_do_not_overlap(bars):
    closes = {name: bars["close"] for name in "ABCDE"}
    figure = performance_figure(closes, dict.fromkeys("ABCDE", "#123456"), DARK)
    places = sorted(a["y"] for a in figure["layout"]["annotations"])
    low, high = figure["layout"]["yaxis"]["range"]
    assert min(np.diff(places)) >= (high - low) * 0.06


@pytest.mark.parametrize("name", ["dark", "light"])
def test_figures_and_style_sheet_share_their_colours(name):
    css = Path(assets.FOLDER, assets.STYLE).read_text()
    block = re.search(rf':root\[data-theme="{name}"\] {{(.*?)}}', css, re.S)[1]
    variables = dict(re.findall(r"--(\w+): (#\w+);", block))
    theme = THEMES[name]
    for role in ("panel", "text", "muted", "line", "up", "down", "accent"):
        assert variables[role] == getattr(theme, role), role
    assert variables["hair"] == theme.grid
