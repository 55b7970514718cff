"""The data bench reads what it wrote, in every way, and counts what it costs."""

import numpy as np
import pytest

from bench import run
from bench.data import made, report
from bench.data.cost import Meter, taking_turns
from bench.data.layouts import layouts, months
from bench.data.objects import Objects
from bench.data.site import built
from mltrading_marketdata.codec import COLUMNS
from ops.errors import Usage
from tests.postgres import running

TINY = made.Size(
    minutes=20_000,
    symbols=4,
    days=300,
    panel_days=20,
    sent_symbols=2,
    sent_days=50,
    object_symbols=3,
    object_months=2,
)


@pytest.fixture(scope="module")
def bars():
    return made.columns(made.minutes(20_000))


@pytest.mark.parametrize("layout", layouts(), ids=lambda each: each.name)
def test_a_layout_gives_back_what_it_was_given(layout, bars):
    rows = [(len(part["ts"]), layout.pack(part)) for _, part in months(bars)]
    found = layout.unpack(rows)
    assert len(rows) > 1
    assert all(np.array_equal(found[name], bars[name]) for name in COLUMNS)


def test_an_object_is_found_by_its_key_alone(tmp_path, bars):
    store = Objects(tmp_path)
    store.put(7, "1m", bars)
    first, last = int(bars["ts"][5_000]), int(bars["ts"][15_000])
    found = store.get(7, "1m", first, last, ("ts", "close"))
    assert np.array_equal(found["close"], bars["close"][5_000:15_001])
    assert len(store.get(8, "1m", first, last)["ts"]) == 0


def test_the_same_bars_are_made_each_time():
    one, other = made.minutes(1_000), made.minutes(1_000)
    assert len(one) == 1_000 and one.equals(other)


def test_a_part_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(Usage, match="milion") as caught:
        run.chosen("milion", report.PARTS)
    assert "million, daily" in str(caught.value.allowed)


def test_a_figure_may_have_a_least():
    assert run.verdict(run.figure("x", [39.0], "times", least=40)) == "MISSED"
    assert run.verdict(run.figure("x", [41.0], "times", least=40)) == "met"


@pytest.mark.integration
def test_the_server_is_counted_also_after_its_process_has_ended():
    import psycopg

    with running() as server:
        meter = Meter(server)

        def work():
            with psycopg.connect(server.url) as c:
                c.execute("SELECT sum(sqrt(i)) FROM generate_series(1, 1000000) AS i")

        cost = meter.cost(work)
    assert cost.server > 0.02 > cost.client


def test_ways_take_turns():
    order = []

    class Counted:
        def cost(self, work, times=1):
            work()
            return run_cost

    from bench.data.cost import Cost

    run_cost = Cost(1.0, 0.0, 1.0)
    ways = {name: lambda name=name: order.append(name) for name in "ab"}
    found = taking_turns(Counted(), ways, 2)
    # Each is done twice beforehand: to warm it up, and to see how long it takes.
    assert order == ["a", "a", "b", "b", "a", "b", "a", "b"]
    assert {name: len(costs) for name, costs in found.items()} == {"a": 2, "b": 2}


@pytest.mark.integration
def test_every_part_measures_something_small(tmp_path):
    """Without peers, which come from a package index."""
    missing = dict.fromkeys(("ADBC", "connectorx", "DuckDB"), "not asked for")
    with running() as server, built(tmp_path, server, TINY, missing) as site:
        found = {part: work(site, 1) for part, work in report.PARTS.items()}
    assert all(found.values())
    written = [row for row in found["resend"] if "written" in row["what"]]
    assert [row["median"] for row in written] == [0, 0, 0, 0]
    units = {row["unit"] for rows in found.values() for row in rows}
    assert units >= {"CPU ms", "times", "bytes per bar", "MB", "s"}
