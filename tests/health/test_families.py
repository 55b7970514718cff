"""Labels are closed: what nobody foresaw is counted, and makes no new series."""

import pytest

from mltrading_health.families import Family, Names


def family(labels, most=100):
    made = []

    def make(*values):
        made.append(values)
        return " ".join(values)

    return Family(make, labels, most), made


def test_a_value_outside_the_set_is_other():
    orders, made = family({"side": ("buy", "sell"), "kind": ("limit",)})
    assert orders.labels("buy", "limit") == "buy limit"
    assert orders.labels("' OR 1=1", "limit") == "other limit"
    assert made == [("buy", "limit"), ("other", "limit")]


def test_the_first_names_are_told_apart_and_the_rest_is_one():
    queries, made = family({"name": Names(2, "<other>")})
    found = [queries.labels(name) for name in ("a", "b", "c", "d", "a")]
    assert found == ["a", "b", "<other>", "<other>", "a"]
    assert len(made) == 3


def test_a_flood_of_values_is_not_remembered():
    orders, made = family({"side": ("buy",)})
    for number in range(1_000):
        orders.labels(f"side {number}")
    assert made == [("other",)] and len(orders._children) == 1


def test_there_are_only_so_many_children():
    grid, made = family({"x": Names(10), "y": Names(10)}, most=5)
    for number in range(100):
        grid.labels(str(number % 10), str(number // 10))
    assert len(made) == 6 and made[-1] == ("other", "other")


def test_the_number_of_labels_is_checked():
    orders, _ = family({"side": ("buy",)})
    with pytest.raises(ValueError, match="1 labels, not 2"):
        orders.labels("buy", "limit")
