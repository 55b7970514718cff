"""Fixtures of the tests of watch."""

import copy

import pytest

from mltrading_health.watch import rules
from tests.health.watch.given import DOCUMENT, Told


@pytest.fixture
def document():
    return copy.deepcopy(DOCUMENT)


@pytest.fixture
def alerts():
    return rules.parse(DOCUMENT)


@pytest.fixture
def rule_of():
    """Return the one rule of a table, with some values changed."""

    def one(table, **more):
        return rules.parse({**DOCUMENT, "rules": [{**table, **more}]}).rules[0]

    return one


@pytest.fixture
def told():
    return Told
