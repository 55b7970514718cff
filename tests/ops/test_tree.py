"""The files of a checkout, and what identifies them."""

from __future__ import annotations

from pathlib import Path

from ops.tree import Tree, imported
from tests.ops.checkouts import write


def test_made_folders_are_no_input_at_the_root_only(tmp_path: Path) -> None:
    for name in ("dist/a.py", ".venv/a.py", "x/__pycache__/a.py", "x/build/a.py"):
        write(tmp_path, name, "")
    assert Tree(tmp_path).paths == ("x/build/a.py",)


def test_a_setting_of_one_tool_is_read_apart_from_the_others(tmp_path: Path) -> None:
    write(tmp_path, "pyproject.toml", "[tool.black]\nx = 1\n[tool.isort]\nx = 2\n")
    tree = Tree(tmp_path)
    assert tree.config("pyproject.toml#tool.black") == {"x": 1}
    assert tree.config("pyproject.toml#tool.none") == {}
    assert tree.config("none.cfg") == ""


def test_imports_are_what_a_module_imports_wherever_it_does() -> None:
    source = b"def f():\n    from a import (\n        b,\n    )\n    import c\n"
    assert imported(source) == "#\nfrom a import b\nimport c"
    assert imported(b"x = 1") == "#"
    assert imported(b"def (:") == ""


def test_what_tasks_make_is_no_module_at_the_root(tmp_path: Path) -> None:
    write(tmp_path, "tasks.py", "")
    write(tmp_path, "src/ours/a.py", "")
    before = Tree(tmp_path).layout
    for name in ("__pycache__/a.pyc", "reports/a.json", "dist/a.whl", ".venv/a.py"):
        write(tmp_path, name, "")
    assert Tree(tmp_path).layout == before == ("src", "src/ours", "tasks.py")
