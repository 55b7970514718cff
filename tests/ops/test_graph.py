"""What depends on what, on sources made up for it."""

from __future__ import annotations

import pytest

from ops import graph

SOURCES = {
    "ops/__init__.py": "",
    "ops/a.py": "from ops import b\n",
    "ops/b.py": "def late():\n    import ops.c\n",
    "ops/c.py": "",
    "ops/d.py": "",
    "packages/p/src/own/__init__.py": (
        "from importlib import import_module\n"
        "def pick(name):\n    return import_module(f'.{name}', __name__)\n"
    ),
    "packages/p/src/own/deep.py": "from . import flat\n",
    "packages/p/src/own/flat.py": "",
    "tests/conftest.py": "",
    "tests/ops/test_a.py": "from ops import a\n",
    "tests/ops/test_named.py": "patch = 'ops.d.thing'\n",
    "tests/ops/test_own.py": "import own\n",
}


def reached(path: str) -> set[str]:
    known = graph.modules(SOURCES)
    found = graph.closure(
        [path], lambda p: graph.direct(p, known, graph.names(SOURCES[p].encode()))
    )
    return set(found) - {path, "ops/__init__.py"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tests/ops/test_a.py", {"ops/a.py", "ops/b.py", "ops/c.py"}),
        ("tests/ops/test_named.py", {"ops/d.py"}),
        (
            "tests/ops/test_own.py",
            {f"packages/p/src/own/{n}.py" for n in ("__init__", "deep", "flat")},
        ),
        (
            "packages/p/src/own/deep.py",
            {f"packages/p/src/own/{n}.py" for n in ("__init__", "flat")},
        ),
    ],
)
def test_a_module_reaches_what_it_imports_or_names(
    path: str, expected: set[str]
) -> None:
    assert reached(path) == expected


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from .x import y", ".x.y"),
        ("from .. import y", "..y"),
        ("def f():\n    import a.b", "a.b"),
        ("run('pkg.wsgi:server')", "pkg.wsgi"),
        ("__import__(name)", graph.ALL_BESIDE),
    ],
)
def test_every_way_to_name_a_module_is_seen(source: str, name: str) -> None:
    assert name in graph.names(source.encode())


def test_what_cannot_be_parsed_names_nothing() -> None:
    assert graph.names(b"def (") == ()


def test_the_conftests_around_a_file_are_those_of_its_folders() -> None:
    paths = frozenset({"conftest.py", "tests/conftest.py", "other/conftest.py"})
    found = graph.around("tests/ops/test_a.py", paths)
    assert found == ["conftest.py", "tests/conftest.py"]
