"""What counts as a yes: judged from answers, nothing is asked here."""

from __future__ import annotations

import json

import pytest

from ops import probe
from ops.command import Answer

HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
VERSION = json.dumps({"release": "v2", "artefact": "abc"}).encode()
FINE = (Answer(200), Answer(200), Answer(200, {}, VERSION))


def test_a_release_that_is_live_ready_and_itself_passes_the_gate() -> None:
    assert probe.worst(probe.gate("v2", "abc"), FINE) == ""


def test_another_release_behind_the_socket_fails_the_gate() -> None:
    problem = probe.worst(probe.gate("v3", "abc"), FINE)
    assert problem == "GET /version: release is 'v2', wanted 'v3'"


def test_another_artefact_under_the_same_number_fails_the_gate() -> None:
    assert "artefact is 'abc'" in probe.worst(probe.gate("v2", "xyz"), FINE)


def test_silence_fails_the_gate_with_its_reason() -> None:
    answers = (Answer(0, error="Connection refused"), *FINE[1:])
    problem = probe.worst(probe.gate("v2", "abc"), answers)
    assert problem == "GET /livez: Connection refused"


def test_a_refusal_shows_what_it_said() -> None:
    answers = (FINE[0], Answer(503, {}, b"draining\n"), FINE[2])
    problem = probe.worst(probe.gate("v2", "abc"), answers)
    assert problem == "GET /readyz: status 503, wanted 200: draining"


def test_a_version_that_is_no_json_fails_the_gate() -> None:
    answers = (*FINE[:2], Answer(200, {}, b"<html>"))
    assert "release is None" in probe.worst(probe.gate("v2", "abc"), answers)


def test_a_page_with_its_headers_passes() -> None:
    assert probe.worst(probe.pages(["/"]), (Answer(200, HEADERS),)) == ""


@pytest.mark.parametrize("name", ["x-content-type-options", "x-frame-options"])
def test_a_page_without_a_security_header_fails(name: str) -> None:
    headers = {key: value for key, value in HEADERS.items() if key != name}
    assert name in probe.worst(probe.pages(["/"]), (Answer(200, headers),))


def test_a_redirect_is_not_a_page() -> None:
    answers = (Answer(302, HEADERS),)
    assert "status 302" in probe.worst(probe.pages(["/"]), answers)


def dependencies(**more: object) -> Answer:
    callback = {
        "output": "..page.children...title.children..",
        "inputs": [
            {"id": "url", "property": "pathname"},
            {"id": "url", "property": "search"},
        ],
        "state": [],
        "clientside_function": None,
        **more,
    }
    return Answer(200, {}, json.dumps([callback]).encode())


def test_a_page_is_drawn_by_posting_its_path_to_the_callback_that_listens() -> None:
    (drawn,) = probe.callbacks(dependencies(), ["/charts/AAPL?r=1Y"])
    body = json.loads(drawn.request.body)
    assert [part["value"] for part in body["inputs"]] == ["/charts/AAPL", "?r=1Y"]
    assert body["outputs"][1] == {"id": "title", "property": "children"}
    assert body["changedPropIds"] == ["url.pathname", "url.search"]


def test_a_callback_that_runs_in_the_browser_is_not_posted() -> None:
    clientside = {"namespace": "app", "function_name": "route"}
    described = dependencies(clientside_function=clientside)
    assert probe.callbacks(described, ["/"]) == ()


def test_a_callback_answer_without_a_page_fails() -> None:
    probes = probe.callbacks(dependencies(), ["/"])
    assert "without a page" in probe.worst(probes, (Answer(200, {}, b"{}"),))


def test_descriptions_that_are_no_json_give_no_probe() -> None:
    assert probe.callbacks(Answer(500, {}, b"oops"), ["/"]) == ()


@pytest.mark.parametrize("body", [b'{"error": "boom"}', b"[1, 2]", b"null"])
def test_descriptions_of_another_shape_give_no_probe(body: bytes) -> None:
    assert probe.callbacks(Answer(500, {}, body), ["/"]) == ()
