"""Print the SQL of each migration for PostgreSQL, without a database.

Run as a program by the gate `sql`: python offline.py FOLDER prints a JSON object, file
name to SQL. Each migration is what it would be on its own: a transaction that waits for
a lock in short turns, or none where it says `concurrently = True`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

# As `migrate` of the data layer sets them; what it allows is no matter of this gate.
_IN_TURNS = "BEGIN;\n\nSET LOCAL lock_timeout = '100ms';\n\n"
_OUTSIDE = "SET lock_timeout = '60s';\n\n"
# What a contract migration is there for, and `ops.migrations` has asked about.
_TAKES = "-- squawk-ignore-file ban-drop-column, ban-drop-table, ban-drop-not-null\n"


def scripts(folder: Path) -> dict[str, str]:
    """Return the SQL of each migration in a folder by its file name."""
    return {path.name: script(path) for path in sorted(folder.glob("[0-9]*.py"))}


def script(path: Path) -> str:
    """Return the SQL of one migration, as it would be run on its own."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    module = _load(path)
    outside = bool(getattr(module, "concurrently", False))
    text = io.StringIO()
    options: dict[str, Any] = {
        "as_sql": True,
        "output_buffer": text,
        "literal_binds": True,
        "concurrently": outside,
    }
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context):
        module.upgrade()
    mark = _TAKES if getattr(module, "contract", False) else ""
    if outside:
        return f"{mark}{_OUTSIDE}{text.getvalue()}"
    return f"{mark}{_IN_TURNS}{text.getvalue()}COMMIT;\n"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"migration_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # nosec B101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(json.dumps(scripts(Path(sys.argv[1]))))
