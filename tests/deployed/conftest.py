"""Where the questions go: `inv test --url`, else a dashboard that is started here."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.served import database, serve

__all__ = ["database", "serve"]


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers, body as text."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@pytest.fixture(scope="session")
def where(request: pytest.FixtureRequest) -> str:
    """The address that is asked, without a slash at its end."""
    named = os.environ.get("MLTRADING_URL")
    if named:
        return named.rstrip("/")
    start = request.getfixturevalue("serve")
    return str(start(request.getfixturevalue("database")))


@pytest.fixture
def ask(where: str) -> Callable[..., Answer]:
    """Ask for a path; an answer with an error status is an answer too."""

    def ask_(
        path: str, *, post: object = None, method: str = "", token: str = ""
    ) -> Answer:
        body = None if post is None else json.dumps(post).encode()
        request = urllib.request.Request(f"{where}{path}", data=body)
        request.method = method or ("GET" if post is None else "POST")
        if post is not None:
            request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return Answer(answer.status, _lower(answer), answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _lower(error), error.read().decode())

    return ask_


def _lower(answer: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}
