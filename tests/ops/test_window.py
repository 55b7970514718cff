"""A release that is watched: what it is compared with, and how the window ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ops import watch
from ops.step import Step
from ops.watch import Sample
from ops.window import Comparison

STEP = Step("watch", "a", "", release=2, budget=0.0, against=1, peers=("b", "c"))


def counting(*answers: dict[tuple[str, int], Sample | None]) -> Callable:
    """Return what releases count, at the beginning and at each look after it."""
    told: dict[tuple[str, int], int] = {}

    def counted(host: str, number: int) -> Sample | None:
        at = told[host, number] = told.get((host, number), -1) + 1
        return answers[min(at, len(answers) - 1)].get((host, number))

    return counted


def sample(answers: float, errors: float = 0.0) -> Sample:
    return Sample(answers, errors, {0.1: answers, float("inf"): answers})


def test_the_old_release_is_what_other_hosts_serve_meanwhile() -> None:
    """It fails as much as the new one now, though it did well before."""
    before = {("a", 2): sample(9), ("b", 1): sample(9000), ("c", 1): sample(9000)}
    after = {
        ("a", 2): sample(109, 10),
        ("b", 1): sample(9100, 10),
        ("c", 1): sample(9100, 10),
    }
    assert Comparison(STEP, counting(before, after)).window().state == "PASS"
    alone = {**after, ("b", 1): sample(9100), ("c", 1): sample(9100)}
    assert Comparison(STEP, counting(before, alone)).window().state == "FAIL"


def test_the_record_of_the_one_that_stands_by_serves_where_no_host_has_it() -> None:
    step = Step("watch", "a", "", release=2, budget=0.0, against=1)
    counted = counting(
        {("a", 2): sample(0), ("a", 1): sample(900, 90)}, {("a", 2): sample(100, 10)}
    )
    assert Comparison(step, counted).window().state == "PASS"


def test_too_few_requests_are_no_verdict_and_count_on_when_held() -> None:
    before, half = {("a", 2): sample(0)}, {("a", 2): sample(20)}
    compared = Comparison(STEP, counting(before, half, {("a", 2): sample(40)}))
    assert compared.window().state == "INCONCLUSIVE"
    assert compared.window().state == "PASS"


def test_a_release_that_was_started_again_is_a_no() -> None:
    counted = counting({("a", 2): sample(50)}, {("a", 2): sample(3)})
    verdict = Comparison(STEP, counted).window()
    assert (verdict.state, verdict.said) == ("FAIL", "it was started again")


def test_a_release_that_is_gone_is_a_no_after_some_questions() -> None:
    compared = Comparison(STEP, counting({("a", 2): sample(50)}, {}))
    said = [compared.verdict(early=True).state for _ in range(watch.SILENT)]
    assert said == [*["INCONCLUSIVE"] * (watch.SILENT - 1), "FAIL"]


@pytest.mark.parametrize(("errors", "state"), [(3, "PASS"), (40, "FAIL")])
def test_before_its_end_only_what_is_clear_ends_a_window(
    errors: int, state: str
) -> None:
    counted = counting({("a", 2): sample(0)}, {("a", 2): sample(100, errors)})
    assert Comparison(STEP, counted).verdict(early=True).state == state
