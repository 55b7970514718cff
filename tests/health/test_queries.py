"""What happens between a service and its database is counted, slow questions logged."""

from mltrading_health import Metrics
from mltrading_health.queries import Queries


def test_a_slow_question_is_logged_by_its_name_only(caplog):
    queries = Queries(Metrics(environ={}))
    queries.asked("Store.bars", 0.4, "ok")
    queries.asked("Store.symbols", 0.7, "Unavailable")
    assert [record.getMessage() for record in caplog.records] == [
        "slow query: Store.symbols took 0.700 s (Unavailable)"
    ]


def test_two_engines_count_in_the_same_metrics():
    metrics = Metrics(environ={})
    for queries in (Queries(metrics), Queries(metrics)):
        queries.asked("select", 0.1, "ok")
    found = metrics.snapshot()
    assert found.total("database_query_duration_seconds_count", name="select") == 2
