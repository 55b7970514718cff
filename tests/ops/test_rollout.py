"""What a watched release is asked beside its figures, and what follows."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from ops.command import Answer, Request
from ops.errors import GateFailed
from ops.plan import Step
from ops.release import Release
from ops.rollout import Rollout
from tests.ops import worlds

WATCH = Step("watch", "one", "", 3, 0.2)


class Host:
    """A host whose release answers each round of questions as it is told to."""

    def __init__(self, ready: Sequence[int]) -> None:
        self.ready = list(ready)

    def record_of(self, host: str, number: int) -> Release:
        return worlds.release(number)

    def ask(self, host: str, number: int, requests: Sequence[Request]) -> list[Answer]:
        said = {"release": f"v{number}", "artefact": worlds.release(number).artefact}
        bodies = {"/version": json.dumps(said).encode()}
        ready = 200
        if any(request.path == "/readyz" for request in requests):
            ready = self.ready.pop(0) if len(self.ready) > 1 else self.ready[0]
        return [
            Answer(
                ready if request.path == "/readyz" else 200,
                {},
                bodies.get(request.path, b""),
            )
            for request in requests
        ]


def watched(*ready: int) -> dict:
    return Rollout(Host(ready), worlds.ENVIRONMENT, "ann")._watch(WATCH)


def test_a_release_that_does_not_stay_ready_is_put_back() -> None:
    with pytest.raises(GateFailed, match="GET /readyz.*2 times in a row"):
        watched(200, 503)


def test_a_release_that_was_not_ready_once_stays() -> None:
    assert watched(503, 200)["verdict"] == "INCONCLUSIVE"
