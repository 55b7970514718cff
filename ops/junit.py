"""Read the JUnit report that pytest writes, and write one out of several runs."""

from __future__ import annotations

import xml.etree.ElementTree as xml  # nosec B405
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Case:
    """One test: its file, its node id, how it ended, and its element as text.

    `state` is passed, failed or skipped; `said` is the first line of why.
    """

    file: str
    node: str
    state: str
    seconds: float
    said: str
    text: str


def read(path: Path) -> list[Case] | None:
    """Return the cases of a report, None where there is none to read."""
    try:
        # What our own pytest wrote, so no hostile document.
        found = list(xml.parse(path).iter("testcase"))  # nosec B314
    except (OSError, xml.ParseError):
        return None
    return [_case(element) for element in found]


def cases_of(texts: Iterable[str]) -> list[Case]:
    """Return cases from the text of their elements."""
    return [_case(xml.fromstring(text)) for text in texts]  # nosec B314


def _case(element: xml.Element) -> Case:
    bad = element.find("failure")
    bad = element.find("error") if bad is None else bad
    skipped = element.find("skipped") is not None
    said = "" if bad is None else (bad.get("message") or bad.text or "").strip()
    element.tail = None
    return Case(
        file=element.get("file", ""),
        node=_node(element),
        state="failed" if bad is not None else "skipped" if skipped else "passed",
        seconds=float(element.get("time") or 0),
        said=said.splitlines()[0] if said else "",
        text=xml.tostring(element, encoding="unicode"),
    )


def _node(case: xml.Element) -> str:
    """Return the node id by which pytest runs this test again."""
    file, name = case.get("file", ""), case.get("name", "")
    module = file.removesuffix(".py").replace("/", ".")
    inner = case.get("classname", "").removeprefix(module).strip(".")
    return "::".join(part for part in (file, inner.replace(".", "::"), name) if part)


def write(path: Path, cases: Sequence[Case], properties: Mapping[str, str]) -> None:
    """Write one report of all cases."""
    suite = xml.Element("testsuite", name="pytest")
    for state, name in (("failed", "failures"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.state == state for case in cases)))
    suite.set("errors", "0")
    suite.set("tests", str(len(cases)))
    suite.set("time", f"{sum(case.seconds for case in cases):.3f}")
    said = xml.SubElement(suite, "properties")
    for name, value in properties.items():
        xml.SubElement(said, "property", name=name, value=value)
    suite.extend(xml.fromstring(case.text) for case in cases)  # nosec B314
    top = xml.Element("testsuites")
    top.append(suite)
    path.write_text(xml.tostring(top, encoding="unicode", xml_declaration=True))
