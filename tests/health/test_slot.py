"""Slots are the lowest numbers that nobody has."""

import pytest

from mltrading_health import slot


@pytest.mark.parametrize(
    ("taken", "free"),
    [((), "0"), (("0", "1"), "2"), (("1", "2"), "0"), (("0", "2"), "1"), (("",), "0")],
)
def test_the_lowest_free_number_is_taken(taken, free):
    assert slot.lowest_free(taken) == free


def test_the_master_has_a_slot_of_its_own():
    assert slot.current() == slot.MASTER
