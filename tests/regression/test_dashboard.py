"""What a visitor does, in a real browser against the real server."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.regression
SECTOR = "Communication Services"


def drawn(page, chart):
    page.locator(f"#{chart} .main-svg").first.wait_for()
    return page.locator(f"#{chart}")


def path_of(page):
    return page.evaluate("location.pathname + decodeURIComponent(location.search)")


def symbols_of(page):
    return page.locator("#symbols tbody tr").evaluate_all(
        "rows => rows.map(row => row.dataset.symbol)"
    )


def click_sector(page, name):
    """Click the bar of a sector where it is now."""
    bars = drawn(page, "sectors").locator(".point path")
    texts = drawn(page, "sectors").locator(".point text")
    place = [name in text for text in texts.all_text_contents()].index(True)
    box = bars.nth(place).bounding_box()
    page.mouse.move(5, 5)
    page.mouse.click(box["x"] + box["width"] - 20, box["y"] + box["height"] / 2)


def test_the_overview_draws_every_symbol(open_page):
    page = open_page("/")
    drawn(page, "performance")
    drawn(page, "sectors")
    assert symbols_of(page) == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    expect(page.locator("#provenance")).to_have_text("Sample data · ends 2013-03-01")


def test_the_chart_draws_candles_and_key_figures(open_page):
    page = open_page("/charts/AAPL")
    assert drawn(page, "price").locator(".boxlayer path").count() > 200
    expect(page.locator(".figures")).to_contain_text("430.47")
    expect(page).to_have_title("AAPL · Charts · ML Trading")


def test_a_click_on_a_sector_filters_and_stays_on_the_page(open_page):
    page = open_page("/")
    click_sector(page, SECTOR)
    expect(page.locator("#symbols tbody tr")).to_have_count(2)
    assert page.evaluate("location.pathname") == "/"
    assert path_of(page).replace("+", " ") == f"/?sector={SECTOR}"
    assert symbols_of(page) == ["FB", "GOOG"]


def test_a_second_click_on_the_sector_clears_the_filter(open_page):
    page = open_page(f"/?sector={SECTOR}")
    click_sector(page, SECTOR)
    expect(page.locator("#symbols tbody tr")).to_have_count(5)
    assert path_of(page) == "/"


def test_filtering_keeps_the_sector_under_the_pointer(open_page):
    page = open_page("/")
    before = drawn(page, "sectors").bounding_box()
    click_sector(page, SECTOR)
    expect(page.locator("#symbols tbody tr")).to_have_count(2)
    assert drawn(page, "sectors").bounding_box() == before


def test_analyze_opens_the_chart_of_its_symbol(open_page):
    page = open_page("/?theme=light")
    page.get_by_role("link", name="Analyze MSFT").click()
    expect(page.get_by_role("heading", name="MSFT")).to_be_visible()
    assert path_of(page) == "/charts/MSFT?theme=light"


def test_compare_opens_with_its_symbol_and_others_come_and_go_by_links(open_page):
    page = open_page("/?theme=light")
    page.get_by_role("link", name="Compare MSFT").click()
    drawn(page, "comparison")
    assert path_of(page) == "/compare?symbols=MSFT&theme=light"
    page.get_by_role("link", name="Add AAPL").click()
    rows = page.locator("#measures tbody tr")
    expect(rows).to_have_count(2)
    expect(page.locator("#comparison .scatterlayer .trace")).to_have_count(2)
    page.get_by_role("link", name="Remove MSFT").click()
    expect(rows).to_have_count(1)
    assert path_of(page) == "/compare?symbols=AAPL&theme=light"
    page.go_back()
    expect(rows).to_have_count(2)


def test_an_indicator_comes_in_a_panel_and_goes_again(open_page):
    page = open_page("/charts/AAPL")
    for name in ("RSI 14", "Bollinger 20 2"):
        page.get_by_role("link", name=f"Show {name}").click()
        page.get_by_role("link", name=f"Hide {name}").wait_for()
    expect(page.locator("#price")).to_contain_text("RSI 14")
    assert path_of(page) == "/charts/AAPL?ind=sma.20,sma.50,bb.20.2,rsi.14"
    expect(page.locator("#price .subplot.xy3 .scatterlayer .trace")).to_have_count(1)
    x, y = zoom_in(page, 1)
    page.mouse.move(x - 30, y)
    expect(page.locator("#readout")).to_contain_text("V ")
    page.get_by_role("link", name="Hide RSI 14").click()
    expect(page.locator("#price .subplot.xy3")).to_have_count(0)


def test_the_watchlist_keeps_the_view_and_changes_the_symbol(open_page):
    page = open_page("/charts/AAPL?r=6M")
    page.get_by_role("navigation", name="Watchlist").get_by_text("IBM").first.click()
    expect(page.get_by_role("heading", name="IBM")).to_be_visible()
    assert path_of(page) == "/charts/IBM?r=6M"


def test_controls_change_the_address_and_nothing_reloads(open_page):
    page = open_page("/charts/AAPL")
    drawn(page, "price")
    page.evaluate("window.sameDocument = true")
    for name in ("3Y", "OHLC"):
        control = page.get_by_role("link", name=name, exact=True)
        control.click()
        expect(control).to_have_attribute("aria-current", "true")
    page.get_by_role("link", name="Hide SMA 50").click()
    expect(page.get_by_role("link", name="Show SMA 50")).to_be_visible()
    assert path_of(page) == "/charts/AAPL?r=3Y&type=ohlc&ind=sma.20"
    assert page.evaluate("window.sameDocument") is True


def test_back_and_forward_restore_each_view(open_page):
    page = open_page("/")
    page.get_by_role("link", name="1Y", exact=True).click()
    expect(page.get_by_text("change over 1Y")).to_be_visible()
    page.get_by_role("link", name="Analyze FB").click()
    expect(page.get_by_role("heading", name="FB")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("change over 1Y")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("change over 3M")).to_be_visible()
    page.go_forward()
    expect(page.get_by_text("change over 1Y")).to_be_visible()
    page.go_forward()
    expect(page.get_by_role("heading", name="FB")).to_be_visible()


def test_a_heading_sorts_and_a_second_click_turns_the_order(open_page):
    page = open_page("/")
    page.get_by_role("link", name="Sort: Last").click()
    expect(page.locator("#symbols tbody tr").first).to_contain_text("GOOG")
    page.get_by_role("link", name="Sort: Last").click()
    expect(page.locator("#symbols tbody tr").first).to_contain_text("FB")
    assert path_of(page) == "/?sort=last"


@pytest.mark.parametrize(("scheme", "other"), [("dark", "light"), ("light", "dark")])
def test_the_theme_follows_the_system_until_the_link_says_else(
    open_page, scheme, other
):
    page = open_page("/charts/AAPL", scheme=scheme)
    html = page.locator("html")
    expect(html).to_have_attribute("data-theme", scheme)
    ground = html.evaluate("part => getComputedStyle(part).backgroundColor")
    page.get_by_role("link", name=f"Switch to the {other} theme").click()
    expect(html).to_have_attribute("data-theme", other)
    page.get_by_role("link", name=f"Switch to the {scheme} theme").wait_for()
    assert html.evaluate("part => getComputedStyle(part).backgroundColor") != ground
    assert path_of(page) == f"/charts/AAPL?theme={other}"


def test_the_theme_follows_the_system_while_the_page_is_open(open_page):
    page = open_page("/", scheme="dark")
    page.emulate_media(color_scheme="light")
    page.get_by_role("link", name="Switch to the dark theme").wait_for()


def zoom_in(page, steps):
    """Turn the wheel over the chart, waiting for the bars of each view."""
    box = drawn(page, "price").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 100
    page.mouse.move(x, y)
    for _ in range(steps):
        with page.expect_response("**/_dash-update-component*") as answer:
            page.mouse.wheel(0, -900)
        assert answer.value.status == 200
    return x, y


def test_zooming_fetches_finer_bars_of_the_view(open_page):
    page = open_page("/charts/AAPL?r=3Y")
    x, y = zoom_in(page, 1)
    page.mouse.move(x - 30, y)
    expect(page.locator("#readout")).to_contain_text(" – ")
    x, y = zoom_in(page, 9)
    expect(page.locator("#price .xaxislayer-above")).to_contain_text("Aug 2011")
    page.mouse.move(x + 30, y)
    expect(page.locator("#readout")).not_to_contain_text(" – ")
    assert path_of(page) == "/charts/AAPL?r=3Y"


def test_a_double_click_brings_the_whole_range_back(open_page):
    page = open_page("/charts/AAPL?r=3Y")
    dates = page.locator("#price .xaxislayer-above")
    x, y = zoom_in(page, 6)
    expect(dates).not_to_contain_text("Apr 2010")
    page.mouse.dblclick(x, y)
    expect(dates).to_contain_text("Apr 2010")


def test_drawing_a_page_asks_the_server_once(open_page):
    page = open_page("/nowhere", fails=True)
    asked = []
    page.on("request", lambda r: r.method == "POST" and asked.append(r.url))
    page.get_by_role("main").get_by_role("link", name="Charts").click()
    drawn(page, "price")
    page.wait_for_load_state("networkidle")
    assert len(asked) == 1


def test_the_big_plotly_bundle_is_never_fetched(open_page):
    page = open_page("/charts/AAPL")
    drawn(page, "price")
    names = page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert len([n for n in names if "plotly" in n]) == 1
    assert not [n for n in names if not n.startswith(page.url.split("/charts")[0])]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/charts/GOOG",
        "/charts/GOOG?ind=bb,rsi,macd,stoch,atr",
        "/compare?symbols=AAPL,FB,GOOG,IBM,MSFT",
        "/status",
        "/charts/NOPE",
        "/nowhere",
    ],
)
def test_no_page_scrolls_sideways(open_page, path):
    page = open_page(path, width=390, height=844, fails="/N" in path or "no" in path)
    page.wait_for_load_state("networkidle")
    for width in (390, 320, 600, 768, 861, 1024, 1240):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_unknown_symbol_offers_the_known_ones(open_page):
    page = open_page("/charts/NOPE", fails=True)
    expect(page.get_by_role("status")).to_contain_text("“NOPE” is not a symbol here")
    page.get_by_role("main").get_by_role("link", name="GOOG", exact=True).click()
    drawn(page, "price")


def test_a_bad_range_is_said_and_the_default_is_shown(open_page):
    page = open_page("/charts/AAPL?r=9Q")
    expect(page.get_by_role("status")).to_contain_text("“9Q” is not a value of r")
    expect(page.get_by_role("link", name="1Y", exact=True)).to_have_attribute(
        "aria-current", "true"
    )


@pytest.mark.parametrize("path", ["/", "/charts/AAPL", "/status"])
def test_a_database_that_is_gone_is_said_on_the_page(open_page, without_database, path):
    page = open_page(path, at=without_database, fails=True)
    expect(page.get_by_role("alert")).to_contain_text("Market data is unavailable")
    expect(page.locator("#provenance")).to_have_text("Data unavailable")


def test_the_keyboard_reaches_content_and_controls(open_page):
    page = open_page("/charts/AAPL")
    drawn(page, "price")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    expect(focused).to_contain_text("AAPL")
    ring = focused.evaluate("part => getComputedStyle(part).outlineStyle")
    assert ring == "solid"


def test_every_control_leads_somewhere_and_has_a_name(open_page):
    for path in ("/", "/charts/AAPL", "/compare?symbols=AAPL,IBM", "/status"):
        page = open_page(path)
        page.wait_for_load_state("networkidle")
        links = page.locator("a").evaluate_all(
            "all => all.map(a => [a.href, (a.ariaLabel || a.innerText || '').trim()])"
        )
        assert all(href and name for href, name in links), links
        assert page.locator("button, input, select").count() == 0
        pages = {re.sub(r"[?#].*", "", href) for href, _ in links}
        assert all(page.request.get(url).ok for url in pages)


def test_the_status_page_is_in_the_menu_and_looks_again(open_page):
    page = open_page("/")
    page.get_by_role("link", name="Status").click()
    expect(page.locator("#standing")).to_contain_text("All checks pass")
    assert path_of(page) == "/status"
    # As 30 s later, in a tab that is in view.
    with page.expect_response("**/_dash-update-component*") as answer:
        page.evaluate("const now = Date.now; Date.now = () => now() + 31000")
    assert "standing" in answer.value.json()["response"]


def test_a_hidden_tab_asks_for_nothing(open_page):
    page = open_page("/status")
    expect(page.locator("#standing")).to_contain_text("Release")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => window.away});"
        "window.away = true; const now = Date.now; Date.now = () => now() + 31000"
    )
    # As long as a beat would have taken, and as often as it would have been looked.
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert asked == []
    with page.expect_response("**/_dash-update-component*"):
        page.evaluate(
            "window.away = false; document.dispatchEvent(new Event('visibilitychange'))"
        )


def test_the_market_clock_is_in_the_time_of_the_viewer(open_page):
    page = open_page("/")
    clock = page.locator("#clock")
    expect(clock).to_contain_text("NYSE")
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    expect(clock).to_contain_text("GMT+9")


def test_the_whole_menu_is_seen_on_a_phone(open_page):
    menu = open_page("/status", width=390, height=844).locator(".pages")
    expect(menu.get_by_role("link", name="Status")).to_be_visible()
    assert menu.evaluate("menu => menu.scrollWidth - menu.clientWidth") == 0
