"""Metrics whose labels take known values only, so that nobody outside makes new series.

A label is closed by a collection of values, or by ``Names``: the first so many that
come. Whatever else comes is counted under one name for all of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

OTHER = "other"
#: Series of one metric, whatever its labels allow.
MOST_CHILDREN = 2_000

Child = TypeVar("Child")


@dataclass(frozen=True, slots=True)
class Names:
    """Close a label by number: for names that code gives, never a visitor."""

    most: int = 100
    other: str = OTHER


Values = Collection[str] | Names


class Family(Generic[Child]):
    """Hold the children of one metric by the values of its labels.

    ``make`` returns the child of some values, ``labels`` says which there can be.
    """

    def __init__(
        self,
        make: Callable[..., Child],
        labels: Mapping[str, Values],
        most: int = MOST_CHILDREN,
    ) -> None:
        self._make, self._most = make, most
        self._rules = tuple(
            (
                (rule.other, rule.most, set())
                if isinstance(rule, Names)
                else (OTHER, 0, frozenset(rule))
            )
            for rule in labels.values()
        )
        self._children: dict[tuple[str, ...], Child] = {}
        self._lock = threading.Lock()

    def labels(self, *values: str) -> Child:
        """Return the child of these values, in the order of the labels.

        Raises:
            ValueError: more or fewer values than labels.
        """
        child = self._children.get(values)
        return child if child is not None else self._adopt(values)

    def knows(self, *values: str) -> bool:
        """Tell whether these values have a child of their own."""
        return values in self._children

    def _adopt(self, values: tuple[str, ...]) -> Child:
        if len(values) != len(self._rules):
            raise ValueError(f"{len(self._rules)} labels, not {len(values)}: {values}")
        with self._lock:
            # What was renamed is not remembered: there is no end to what it can be.
            known = tuple(map(self._name, values, self._rules))
            if known not in self._children and len(self._children) >= self._most:
                known = tuple(other for other, _, _ in self._rules)
            if known not in self._children:
                self._children[known] = self._make(*known)
            return self._children[known]

    @staticmethod
    def _name(value: str, rule: tuple[str, int, set[str] | frozenset[str]]) -> str:
        other, most, known = rule
        if value not in known:
            if len(known) >= most:
                return other
            known.add(value)
        return value
