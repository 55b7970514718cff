import json
import logging
import re
from contextlib import ExitStack

import pytest
from werkzeug.test import Client

from mltrading_dashboard import assets, security, telemetry
from mltrading_dashboard.app import create_app, create_service, tell_connections
from mltrading_dashboard.data import Data
from mltrading_dashboard.health import create_health
from mltrading_dashboard.settings import Settings
from mltrading_health import Metrics, Status
from mltrading_marketdata import Unavailable, open_store
from mltrading_marketdata.ledger import Ledger

PAGE = "..app.children...title.data.."
JSON = {"content-type": "application/json"}


def page_request(pathname, search="", scheme="dark"):
    return {
        "output": PAGE,
        "outputs": [
            {"id": "app", "property": "children"},
            {"id": "title", "property": "data"},
        ],
        "inputs": [
            {"id": "url", "property": "pathname", "value": pathname},
            {"id": "url", "property": "search", "value": search},
            {"id": "scheme", "property": "data", "value": scheme},
        ],
        "changedPropIds": ["url.pathname"],
    }


def zoom_request(moved, pathname="/charts/AAPL", search=""):
    return {
        "output": "price.figure",
        "outputs": {"id": "price", "property": "figure"},
        "inputs": [{"id": "window", "property": "data", "value": moved}],
        "state": [
            {"id": "url", "property": "pathname", "value": pathname},
            {"id": "url", "property": "search", "value": search},
            {"id": "scheme", "property": "data", "value": "dark"},
        ],
        "changedPropIds": ["window.data"],
    }


def ask(client, body):
    return client.post(security.CALLBACKS, json=body)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/", 200),
        ("/charts", 200),
        ("/charts/AAPL?r=3Y", 200),
        ("/charts/msft", 200),
        ("/?r=nonsense", 200),
        ("/compare", 200),
        ("/compare?symbols=aapl,MSFT&range=6M", 200),
        ("/compare?symbols=AAPL,NOPE", 404),
        ("/charts/NOPE", 404),
        ("/no/such/page", 404),
        ("/missing", 404),
        ("/assets/nothing.js", 404),
        ("/assets/../app.py", 404),
    ],
)
def test_the_status_says_what_the_page_says(client, url, status):
    assert client.get(url).status_code == status


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("pathname", "search", "text"),
    [
        ("/", "", "Analyze AAPL"),
        ("/", "?sector=Communication%20Services", "Analyze GOOG"),
        ("/", "?sector=Nothing", "is not a sector"),
        ("/", "?sort=-volume&r=All", "Performance"),
        ("/charts", "", "AAPL chart"),
        ("/charts/IBM", "?type=ohlc&ind=none", "IBM chart"),
        ("/charts/IBM", "?ind=rsi.14,bb.20.2,macd.5.35.5", "Hide MACD 5 35 5"),
        ("/charts/IBM", "?ind=bb.9999.2", "is not a value of ind"),
        ("/charts/IBM", "?r=9Q", "is not a value of r"),
        ("/charts/NOPE", "", "is not a symbol here"),
        ("/", "", "Compare AAPL"),
        ("/charts/IBM", "", "Compare IBM"),
        ("/compare", "", "Nothing to compare yet"),
        ("/compare", "?symbols=AAPL,IBM", "Remove IBM"),
        ("/compare", "?symbols=AAPL,IBM", "Add MSFT"),
        ("/compare", "?symbols=IBM,AAPL", "with IBM"),
        ("/compare", "?symbols=AAPL,NOPE", "is not a symbol here"),
        ("/compare", "?symbols=AAPL,FB&r=3Y", "FB begins 2012-05-18"),
        ("/compare", "?symbols=A,B,C,D,E,F", "remove one to add another"),
        ("/compare", "?symbols=A,B,C,D,E,F,G", "is not a value of symbols"),
        ("/elsewhere", "", "Page not found"),
    ],
)
def test_every_page_is_rendered(client, pathname, search, text):
    answer = ask(client, page_request(pathname, search))
    assert answer.status_code == 200
    assert text in answer.text


def test_a_sector_filters_the_rows(client):
    text = ask(client, page_request("/", "?sector=Communication%20Services")).text
    assert "Analyze FB" in text and "Analyze IBM" not in text


@pytest.mark.smoke
def test_a_page_behind_a_closed_flag_is_nowhere(store):
    app = create_app(Settings("test", "sqlite:///not-opened.db"), store)
    client = app.server.test_client()
    answer = client.get("/compare?symbols=AAPL")
    assert answer.status_code == 404 and "Not found" in answer.text
    assert "Page not found" in ask(client, page_request("/compare")).text
    for page in ("/", "/charts", "/nowhere"):
        assert "ompare" not in ask(client, page_request(page)).text


def rows_of(text):
    """Return the cells of each row of the comparison, by symbol."""
    root = json.loads(text)["response"]["app"]["children"]
    rows = {}

    def texts(part):
        if isinstance(part, dict):
            part = part["props"].get("children")
        if isinstance(part, list):
            return "".join(map(texts, part))
        return "" if part is None else str(part)

    def walk(part):
        if isinstance(part, list):
            return [walk(one) for one in part]
        if isinstance(part, dict):
            props = part.get("props", {})
            if "data-symbol" in props:
                cells = props["children"][1:]
                rows[props["data-symbol"]] = [texts(cell) for cell in cells]
            walk(props.get("children"))

    walk(root)
    return rows


def test_symbols_are_measured_against_the_first(client):
    rows = rows_of(ask(client, page_request("/compare", "?symbols=MSFT,AAPL")).text)
    assert list(rows) == ["MSFT", "AAPL"]
    change, volatility, _, drawdown, correlation, beta, volume = rows["MSFT"]
    assert re.fullmatch(r"[+−]\d+\.\d\d%", change)
    assert re.fullmatch(r"\d+\.\d%", volatility)
    assert re.fullmatch(r"−\d+\.\d\d%", drawdown)
    assert (correlation, beta) == ("1.00", "1.00")
    assert volume.endswith(" M")
    assert rows["AAPL"][4] != "1.00"


def test_six_symbols_leave_nothing_to_add(client, data):
    asked = ",".join([*data.symbols().index, "NOPE"])
    text = ask(client, page_request("/compare", f"?symbols={asked}")).text
    assert "remove one to add another" not in text
    assert "Add " not in text and "Remove NOPE" in text


@pytest.mark.parametrize("pathname", ["/", "/charts/AAPL", "/compare"])
def test_a_database_that_is_gone_is_said_plainly(down, pathname):
    page = down.get(pathname)
    body = ask(down, page_request(pathname))
    assert page.status_code == 503 and page.headers["Retry-After"]
    assert "Market data is unavailable" in body.text
    assert "Traceback" not in body.text


def test_an_error_nobody_foresaw_is_logged_and_shown(store, caplog):
    app = create_app(Settings("test", "sqlite:///not-opened.db"), store)
    app.data.bars = lambda symbol: 1 / 0
    answer = ask(app.server.test_client(), page_request("/"))
    reference = caplog.records[-1].getMessage().split()[-1]
    assert reference in answer.text
    assert "ZeroDivisionError" not in answer.text


def test_zooming_in_gives_finer_bars(client):
    wide = ask(client, zoom_request({"left": 0, "right": 3270})).text
    near = ask(client, zoom_request({"left": 3000, "right": 3100})).text
    assert " – " in wide and " – " not in near


def test_zooming_moves_the_panels_with_the_prices(client):
    moved = {"left": 3000, "right": 3100}
    body = zoom_request(moved, search="?ind=macd,rsi.14")
    changed = ask(client, body).json["response"]["price"]["figure"]["operations"]
    where = {".".join(map(str, one["location"])) for one in changed}
    assert {"layout.yaxis3.range", "layout.yaxis4.range", "data"} <= where
    assert "layout.yaxis5.range" not in where


@pytest.mark.parametrize(
    "moved",
    [None, {}, [], "left", {"left": "a", "right": 2}, {"left": 1}, {"left": True}],
)
def test_a_move_that_is_none_changes_nothing(client, moved):
    assert ask(client, zoom_request(moved)).status_code == 204


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e30"])
def test_a_move_beyond_numbers_changes_nothing(client, number):
    body = json.dumps(zoom_request({"left": 0, "right": 77})).replace("77", number)
    answer = client.post(security.CALLBACKS, data=body, headers=JSON)
    assert answer.status_code == 204


def test_zooming_a_symbol_that_is_not_there_is_no_crash(client):
    answer = ask(client, zoom_request({"left": 0, "right": 9}, "/charts/NOPE"))
    assert answer.status_code == 204


FORGED = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"3",
    b"{}",
    b'{"output": 3}',
    b'{"output": ["app.children"]}',
    b'{"output": "app.children"}',
    b'{"output": "price.figure"}',
    b'{"output": "price.figure", "inputs": 1, "state": {}}',
    b'{"output": "url.search"}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", FORGED)
def test_a_forged_callback_is_the_senders_fault(client, body):
    answer = client.post(security.CALLBACKS, data=body, headers=JSON)
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("outputs", []),
        ("outputs", {"id": "app", "property": "children"}),
        ("outputs", [{"id": {"a": 1}, "property": "x"}] * 2),
        ("inputs", []),
        ("inputs", [[{"id": "url", "property": "pathname"}]]),
        ("inputs", [{"id": "url"}] * 3),
        ("state", [{"id": "url", "property": "search", "value": ""}]),
        ("changedPropIds", "url.pathname"),
        ("changedPropIds", [{}]),
    ],
)
def test_a_callback_with_another_shape_is_refused(client, key, value):
    answer = ask(client, {**page_request("/"), key: value})
    assert answer.status_code == 400


@pytest.mark.parametrize("value", [None, 7, [], {"a": 1}, "x" * 5_000, "//", "%"])
def test_any_value_in_a_callback_gives_a_page(client, value):
    answer = ask(client, page_request(value, value, value))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path", ["x/y", "dash/x", "dash/../../etc/passwd", "dash/dcc/%00", "sys/path.js"]
)
def test_a_file_that_dash_does_not_have_is_no_failure_of_ours(client, path):
    assert client.get(f"/_dash-component-suites/{path}").status_code == 404


def test_the_files_of_dash_that_a_page_names_are_there(client):
    page = client.get("/").text
    named = re.findall(r'src="(/_dash-component-suites/[^"]+)"', page)
    assert named and {client.get(each).status_code for each in named} == {200}


def test_a_body_beyond_the_limit_is_refused(client):
    body = {**page_request("/"), "more": "x" * security.LARGEST_BODY}
    assert ask(client, body).status_code == 413


def test_a_callback_that_is_not_json_is_refused(client):
    assert client.post(security.CALLBACKS, data="a=1").status_code == 415


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # not a browser: nobody whom it could abuse
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_callback_is_for_pages_of_this_site(client, headers, status):
    answer = client.post(security.CALLBACKS, json=page_request("/"), headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("url", ["/", "/provenance", security.CALLBACKS])
def test_no_other_site_can_change_anything(client, method, url):
    headers = {"Origin": "https://evil.example"}
    assert client.open(url, method=method, headers=headers).status_code == 403


def test_a_link_from_another_site_opens_a_page(client):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/charts/AAPL", headers=headers).status_code == 200


def test_there_is_no_cookie_that_another_site_could_use(client):
    answers = [client.get(url) for url in ("/", "/_dash-layout", "/none")]
    answers.append(ask(client, page_request("/")))
    assert not [a.headers["Set-Cookie"] for a in answers if "Set-Cookie" in a.headers]
    assert client.application.secret_key is None


@pytest.mark.parametrize(
    ("proxies", "said", "https"),
    [
        (0, "https", False),  # a visitor wrote it
        (1, "https", True),
        (1, "http", False),
        (1, "https, http", False),  # the nearest proxy counts
        (2, "https", True),
    ],
)
def test_browsers_are_told_to_stay_with_https(store, proxies, said, https):
    settings = Settings("test", "sqlite:///not-opened.db", trusted_proxies=proxies)
    client = create_app(settings, store).server.test_client()
    headers = client.get("/none", headers={"X-Forwarded-Proto": said}).headers
    found = headers.get("Strict-Transport-Security")
    assert found == (security.HTTPS_ONLY if https else None)


@pytest.mark.parametrize("url", ["/", "/charts/NOPE", "/assets/nothing", "/none"])
def test_every_answer_carries_the_headers(client, url):
    headers = client.get(url).headers
    assert {name: headers[name] for name in security.HEADERS} == security.HEADERS
    policy = headers["Content-Security-Policy"]
    scripts = policy.split("script-src ")[1].split(";")[0]
    assert "unsafe" not in scripts and "frame-ancestors 'none'" in policy


def test_no_version_is_told_and_no_script_is_inline(client):
    text = client.get("/").text
    assert "python_version" not in text and "dash_version" not in text
    inline = re.findall(r"<script(?![^>]* src=)[^>]*>", text)
    assert inline == ['<script id="_dash-config" type="application/json">']


def test_the_page_names_language_title_and_theme(client):
    text = client.get("/charts/AAPL?theme=light").text
    assert '<html lang="en" data-theme="light">' in text
    assert "<title>AAPL · Charts · ML Trading</title>" in text


def test_what_was_typed_is_escaped(client):
    text = client.get("/charts/%3Cscript%3Ealert(1)%3C%2Fscript%3E").text
    assert "<SCRIPT>" not in text.upper().replace("<SCRIPT ", "")


@pytest.mark.parametrize("name", [assets.STYLE, assets.SCRIPT, assets.PLOTLY])
def test_a_file_is_kept_for_a_year_under_its_own_address_only(client, name):
    kept = client.get(assets.url(name))
    assert kept.cache_control.max_age == assets.YEAR
    if name != assets.PLOTLY:
        assert client.get(f"/assets/{name}?v=old").cache_control.max_age is None


def test_the_packed_plotly_is_the_plain_one():
    import brotli

    plain = (assets.FOLDER / assets.PLOTLY).read_bytes()
    assert brotli.decompress((assets.FOLDER / f"{assets.PLOTLY}.br").read_bytes()) == (
        plain
    )


@pytest.mark.parametrize("coding", ["br", "gzip"])
def test_answers_are_compressed(client, coding):
    for url in ("/", assets.url(assets.STYLE), assets.url(assets.PLOTLY)):
        answer = client.get(url, headers={"Accept-Encoding": coding})
        assert answer.headers["Content-Encoding"] == coding
        answer.close()


def outputs_of(callback):
    if callback["no_output"]:
        return set()
    parts = callback["output"].strip(".").split("...")
    return {part.split("@")[0] for part in parts}


def test_no_event_of_a_chart_can_write_the_path(app):
    fed = {"clickData", "relayoutData", "hoverData", "selectedData"}
    # The function `moved` of app.js answers relayoutData by setting window.data.
    reached = {"price.relayoutData", "window.data"}
    for callback in app._callback_list:
        inputs = {f"{i['id']}.{i['property']}" for i in callback["inputs"]}
        if {name.rsplit(".")[-1] for name in inputs} & fed or inputs & reached:
            reached |= outputs_of(callback)
    assert "url.search" in reached
    assert not {"url.pathname", "url.href"} & reached


def test_every_callback_names_components_that_exist(app):
    ids = {part.id for part in app.validation_layout._traverse() if hasattr(part, "id")}
    for callback in app._callback_list:
        named = {i["id"] for i in callback["inputs"] + callback["state"]}
        named |= {output.split(".")[0] for output in outputs_of(callback)}
        assert named <= ids


@pytest.mark.smoke
def test_probes_answer_before_the_dashboard(store):
    settings = Settings("test", "sqlite:///not-opened.db", release="r7")
    client = Client(create_service(settings, store).server)
    assert client.get("/health").json["checks"]["database"] is True
    assert client.get("/", buffered=True).headers["X-Release"] == "r7"
    assert 'route="page overview"' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("metrics", "token", "sent", "status"),
    [
        ("open", "", "", 200),
        ("token", "", "", 401),
        ("token", "t" * 16, "", 401),
        ("token", "t" * 16, "u" * 16, 401),
        ("token", "t" * 16, "t" * 16, 200),
    ],
)
def test_the_metrics_are_for_whoever_may_read_them(store, metrics, token, sent, status):
    settings = Settings(
        "prod", "sqlite:///not-opened.db", metrics=metrics, health_token=token
    )
    client = Client(create_service(settings, store).server)
    headers = {"Authorization": f"Bearer {sent}"} if sent else {}
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == status
    assert ("http_requests" in answer.text) == (status == 200)


def test_a_provider_that_gave_nothing_is_told_and_takes_nobody_out(store, monkeypatch):
    health = create_health(Settings("test", "sqlite:///not-opened.db"), store)
    assert health.checks["external_apis"].fn().status == Status.PASS
    monkeypatch.setattr(Ledger, "silent", lambda self: ["yahoo"])
    found = health.checks["external_apis"].fn()
    assert (found.status, found.output) == (Status.FAIL, "no bars came from yahoo")
    assert "external_apis" not in health.report("ready", critical=True).checks


def test_what_providers_did_is_unknown_without_a_database(store, monkeypatch):
    def refuse(self):
        raise Unavailable("gone")

    monkeypatch.setattr(Ledger, "silent", refuse)
    health = create_health(Settings("test", "sqlite:///not-opened.db"), store)
    assert health.checks["external_apis"].fn().status == Status.WARN


def test_a_page_tells_how_long_it_took_and_a_made_up_one_makes_no_series(store):
    settings = Settings("test", "sqlite:///not-opened.db")
    client = Client(create_service(settings, store).server)
    page = client.get("/charts/AAPL").text
    assert re.search(r'src="/assets/timings.js\?v=\w+" data-page="charts"', page)
    for name in ("charts", "made up", "made up too"):
        report = {"page": name, "load_time": 812.5, "user_agent": "x", "timestamp": 1}
        assert client.post("/metrics/client", json=report).status_code == 204
    said = client.get("/metrics").text
    found = re.findall(
        r'browser_page_load_seconds_count{page="([^"]*)",.*} (\S+)', said
    )
    assert {page: float(count) for page, count in found if float(count)} == {
        "charts": 1,
        "other": 2,
    }


def test_charts_are_timed_by_their_name(store):
    settings = Settings("test", "sqlite:///not-opened.db")
    client = Client(create_service(settings, store).server)
    client.post("/_dash-update-component", json=page_request("/charts/AAPL"))
    said = client.get("/metrics").text
    assert (
        'function_duration_seconds_count{name="chart price",release="dev"} 1.0' in said
    )


def test_a_forged_callback_is_counted_apart(store):
    settings = Settings("test", "sqlite:///not-opened.db")
    client = Client(create_service(settings, store).server)
    for number in range(3):
        forged = {**page_request("/"), "output": f"made.up{number}"}
        answer = client.post("/_dash-update-component", json=forged, buffered=True)
        assert answer.status_code == 400
    said = client.get("/metrics").text
    labels = 'release="dev",route="<unknown callback>",status="4xx"'
    assert f'_total{{method="POST",{labels}}} 3.0' in said and "made.up" not in said


@pytest.fixture
def closed_later(monkeypatch):
    """Close the stores that the application opens for itself."""
    with ExitStack() as stack:

        def opened(*args, **kwargs):
            return stack.enter_context(open_store(*args, **kwargs))

        monkeypatch.setattr("mltrading_dashboard.app.open_store", opened)
        yield


@pytest.mark.usefixtures("closed_later")
def test_questions_to_the_database_are_measured(database_url):
    client = Client(create_service(Settings("test", database_url)).server)
    client.get("/", buffered=True)
    text = client.get("/metrics").text
    name = 'name="Store.symbols",release="dev"'
    assert f"database_query_duration_seconds_count{{{name}}} 1.0" in text
    assert "database_connections_in_use 0.0" in text
    assert "database_connections_limit 4.0" in text


def test_everything_the_store_tells_is_counted():
    metrics = Metrics(environ={})
    hooks = telemetry.hooks(metrics)
    hooks.asked("Store.bars", 0.1, "PoolExhausted")
    hooks.retried("Store.bars", "cut")
    hooks.connected(0.2)
    hooks.pool(3, 4)
    hooks.locked(0.3)
    hooks.cached(True)
    found = metrics.snapshot()
    for name, labels, value in (
        (
            "database_query_failures_total",
            {"name": "Store.bars", "error": "PoolExhausted"},
            1,
        ),
        ("database_query_retries_total", {"reason": "cut"}, 1),
        ("database_connection_wait_seconds_sum", {}, 0.2),
        ("database_connections_in_use", {}, 3),
        ("database_connections_limit", {}, 4),
        ("database_lock_wait_seconds_sum", {}, 0.3),
        ("database_cache_requests_total", {"result": "hit"}, 1),
    ):
        assert found.total(name, **labels) == value, name
    misses = found.samples["database_cache_requests_total"]
    assert misses[frozenset({("result", "miss")})] == 0


@pytest.mark.usefixtures("closed_later")
@pytest.mark.parametrize(("pool", "threads"), [(20, 4), (3, 8)])
def test_the_pool_is_never_larger_than_the_threads(database_url, pool, threads):
    settings = Settings("test", database_url, database_pool_size=pool, threads=threads)
    server = create_service(settings).server
    client = Client(server)
    client.get("/", buffered=True)
    limit = f"database_connections_limit {min(pool, threads)}.0"
    assert limit in client.get("/metrics").text


def test_a_database_that_is_gone_is_a_warning_at_the_start(caplog):
    gone = Settings("test", "postgresql://u:hush@127.0.0.1:1/market")
    tell_connections(gone, logging.getLogger())
    (record,) = caplog.records
    said = record.getMessage()
    assert "127.0.0.1:1/market does not answer" in said and "hush" not in said
    assert record.levelname == "WARNING"


def test_importing_the_application_touches_nothing(monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    app = create_app(Settings("test", "sqlite:////nowhere/at/all.db"))
    assert app.server.test_client().get("/").status_code == 503


def test_a_zoom_without_a_database_says_so(down):
    answer = ask(down, zoom_request({"left": 0, "right": 99}))
    assert answer.status_code == 200
    assert "Market data is unavailable" in answer.text


def test_a_page_is_drawn_once_for_all_who_look_within_a_second(monkeypatch):
    now, drawn = [0.0], []
    data = Data(None, ttl=300, clock=lambda: now[0])
    for at in (0.0, 0.9, 1.1):
        now[0] = at
        data.page("key", lambda: drawn.append(1))
    assert len(drawn) == 2


def test_a_page_that_could_not_be_drawn_is_tried_again():
    data = Data(None, ttl=300, clock=lambda: 0.0)
    with pytest.raises(ZeroDivisionError):
        data.page("key", lambda: 1 / 0)
    assert data.page("key", lambda: "drawn") == "drawn"


def test_it_tells_where_its_bars_come_from(client, down):
    said = client.get("/provenance")
    assert said.get_json() == {
        "sources": ["sample, ends 2013-03-01"],
        "last_bar": "2013-03-01T00:00:00+00:00",
    }
    assert down.get("/provenance").status_code == 503


class Invented:
    """The sample's store, some or all of whose bars say that they are invented."""

    def __init__(self, store, sources):
        self.store, self.sources = store, sources

    def __getattr__(self, name):
        return getattr(self.store, name)

    def info(self):
        return self.store.info() | {"sources": self.sources}


@pytest.mark.parametrize("pathname", ["/", "/charts/AAPL", "/nowhere"])
@pytest.mark.parametrize(
    ("sources", "pill", "notice"),
    [
        (["SYNTHETIC, seed 1"], "SYNTHETIC data", "These prices are SYNTHETIC."),
        (
            ["SYNTHETIC, seed 1", "Yahoo Finance"],
            "Partly SYNTHETIC data",
            "Some of these prices are SYNTHETIC.",
        ),
    ],
)
def test_invented_bars_are_called_so_on_every_page(
    store, pathname, sources, pill, notice
):
    settings = Settings("test", "sqlite:///not-opened.db")
    app = create_app(settings, Invented(store, sources))
    page = ask(app.server.test_client(), page_request(pathname)).get_data(as_text=True)
    assert pill in page and notice in page and "nobody traded at them" in page


def test_real_bars_are_not_called_invented(client):
    page = ask(client, page_request("/")).get_data(as_text=True)
    assert "SYNTHETIC" not in page and "Sample data" in page
