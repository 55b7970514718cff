"""How long an outage goes on before people hear: the arithmetic of the docs page."""

import math

import pytest

from mltrading_health.watch.evaluate import FIRING, evaluate
from mltrading_health.watch.series import History
from tests.health.watch.given import ERRORS, labels

RATE = 10  # requests per second


def heard_after(rule, interval, offset, share, *, known):
    """Return the seconds from a breach, ``offset`` after a look, to the alert.

    ``known``: the series of failed requests has been there before, at zero.
    """
    history, state, begins = History([rule]), {}, 40 * interval + offset
    for look in range(1000):
        now = look * interval
        failed = math.floor(max(0.0, now - begins) * RATE * share)
        series = {labels(status="2xx"): now * RATE - failed}
        if known or failed:
            series[labels(status="5xx")] = failed
        history.add(now, {"http_requests_total": series})
        state, changes = evaluate([rule], history, now, state)
        if any(change.to == FIRING for change in changes):
            return now - begins
    return math.inf


@pytest.mark.parametrize(
    ("interval", "share", "known", "worst"),
    [
        (10, 1.0, True, 46),
        (10, 1.0, False, 50),
        (10, 0.1, True, 101),
        (15, 1.0, True, 51),
        (15, 1.0, False, 60),
        (15, 0.1, True, 106),
    ],
)
def test_people_hear_of_an_outage_within_a_minute(
    rule_of, interval, share, known, worst
):
    rule = rule_of(ERRORS)
    seconds = [
        heard_after(rule, interval, offset / 4, share, known=known)
        for offset in range(4 * interval)
    ]
    assert worst - interval / 2 < max(seconds) <= worst
