"""The database is asked by a ping, and one that takes long is a warning."""

import pytest

from mltrading_health import Health, Status, database_check


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0.002, Status.PASS), (0.5, Status.PASS), (0.6, Status.WARN)],
)
def test_the_time_of_an_answer_decides(seconds, status):
    times = iter([10.0, 10.0 + seconds])
    result = database_check(lambda: None, clock=lambda: next(times))()
    assert result.status is status
    assert (result.value, result.unit) == (1000 * seconds, "ms")


def test_a_ping_that_raises_fails_without_its_password():
    def ping():
        raise OSError("could not reach postgresql://me:hunter22@db/x")

    health = Health("dashboard")
    health.check("database", database_check(ping), kind="datastore")
    result = health.report().checks["database"]
    assert result.status is Status.FAIL and "hunter22" not in result.output
