"""Others that read and write bars: an environment of their own, never in the lock.

Each is installed into a folder and put behind the product's packages on the path, so
that both share one pandas, one numpy and one run. What can't be installed is named.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mltrading_marketdata.codec import COLUMNS

# Without what they need: pandas, pyarrow and numpy are here, the rest is listed.
PACKAGES = {
    "ADBC": (
        "adbc-driver-manager==1.13.0",
        "adbc-driver-postgresql==1.13.0",
        "adbc-driver-sqlite==1.13.0",
    ),
    "connectorx": ("connectorx==0.4.6",),
    "DuckDB": ("duckdb==2.0.1",),
}
_MODULES = {
    "ADBC": "adbc_driver_postgresql.dbapi",
    "connectorx": "connectorx",
    "DuckDB": "duckdb",
}


def install(folder: Path) -> dict[str, str]:
    """Install the peers and make them importable; return why any is missing."""
    uv = os.environ.get("UV") or shutil.which("uv") or "uv"
    missing = {}
    for name, packages in PACKAGES.items():
        place = folder / name
        command = [uv, "pip", "install", "-q", "--no-deps", "--target", str(place)]
        command += ["--python", sys.executable, *packages]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            missing[name] = f"not installed: {ended.stderr.strip()[-300:]}"
            continue
        sys.path.append(str(place))
        importlib.invalidate_caches()
        try:
            importlib.import_module(_MODULES[name])
        except ImportError as error:
            missing[name] = f"not importable: {error}"
    return missing


def versions() -> dict[str, str]:
    """Return the versions of all that is compared."""
    names = ["numpy", "pandas", "psycopg", "pyarrow", "sqlalchemy"]
    names += [each.partition("==")[0] for each in sum(PACKAGES.values(), ())]
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


Query = Callable[[str], pd.DataFrame]


def of_postgres(url: str, missing: dict[str, str]) -> dict[str, Query]:
    """Return how the peers ask PostgreSQL; a question gives a frame of rows."""
    found: dict[str, Query] = {}
    if "ADBC" not in missing:
        from adbc_driver_postgresql import dbapi

        found["ADBC"] = _Adbc(dbapi.connect(url))
    if "connectorx" not in missing:
        found["connectorx"] = _connectorx(_with_host(url))
    return found


def of_sqlite(path: Path, missing: dict[str, str]) -> dict[str, Query]:
    """Return how the peers ask SQLite."""
    found: dict[str, Query] = {}
    if "ADBC" not in missing:
        from adbc_driver_sqlite import dbapi

        found["ADBC"] = _Adbc(dbapi.connect(str(path)))
    if "connectorx" not in missing:
        found["connectorx"] = _connectorx(f"sqlite://{path}")
    return found


class _Adbc:
    """One connection, kept."""

    def __init__(self, connection: object) -> None:
        self._connection = connection

    def __call__(self, query: str) -> pd.DataFrame:
        with self._connection.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute(query)
            return cursor.fetch_arrow_table().to_pandas()

    def close(self) -> None:
        self._connection.close()  # type: ignore[attr-defined]


def _connectorx(url: str) -> Query:
    import connectorx

    return lambda query: connectorx.read_sql(url, query)


def _with_host(url: str) -> str:
    """Return a URL whose host is the folder of the socket: it reads no other place."""
    parts = urlsplit(url)
    where = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if "host" not in where:
        return url
    folder = where["host"].replace("/", "%2F")
    return f"postgresql://postgres@{folder}:{where['port']}{parts.path}"


class Duck:
    """DuckDB with rows in a file of its own, ordered by series and time."""

    def __init__(self, path: Path) -> None:
        import duckdb

        self._connection = duckdb.connect(str(path))
        for name in ("bar", "sent"):
            self._connection.execute(
                f"CREATE TABLE {name} (series_id INTEGER, ts TIMESTAMP, open DOUBLE, "
                "high DOUBLE, low DOUBLE, close DOUBLE, volume BIGINT"
                + (", PRIMARY KEY (series_id, ts))" if name == "sent" else ")")
            )

    def fill(self, rows: pa.Table) -> None:
        self._connection.register("rows", rows)
        self._connection.execute("INSERT INTO bar SELECT * FROM rows")
        self._connection.unregister("rows")

    def upsert(self, rows: pa.Table) -> None:
        """Upsert rows into an empty table with a key."""
        self._connection.execute("DELETE FROM sent")
        self._connection.register("rows", rows)
        self._connection.execute("INSERT OR REPLACE INTO sent SELECT * FROM rows")
        self._connection.unregister("rows")

    def __call__(self, query: str) -> pd.DataFrame:
        return self._connection.execute(query).df()

    def close(self) -> None:
        self._connection.close()


class Parquet:
    """Files of pyarrow: one of minutes, one of all daily bars by symbol and time."""

    def __init__(self, folder: Path) -> None:
        self.minutes, self.days = folder / "minutes.parquet", folder / "days.parquet"
        self._sent = folder / "sent.parquet"

    def fill(self, minutes: pa.Table, days: pa.Table) -> None:
        pq.write_table(minutes, self.minutes, compression="zstd")
        # A row group is what is skipped by its bounds: some symbols each.
        pq.write_table(days, self.days, compression="zstd", row_group_size=50_000)

    def write(self, rows: pa.Table) -> None:
        """Write rows as a new file; there is no upsert."""
        pq.write_table(rows, self._sent, compression="zstd")

    def read(
        self,
        path: Path,
        columns: Sequence[str] = COLUMNS,
        filters: list[tuple[str, str, object]] | None = None,
    ) -> pd.DataFrame:
        return pq.read_table(path, columns=list(columns), filters=filters).to_pandas()


def table(series: dict[int, pd.DataFrame]) -> pa.Table:
    """Return series as one Arrow table, one after the other."""
    parts = []
    for number, frame in series.items():
        part = frame.reset_index().assign(series_id=number)
        part["ts"] = part["ts"].dt.tz_localize(None)
        part["volume"] = part["volume"].astype("int64")
        names = ["series_id", "ts", "open", "high", "low", "close", "volume"]
        parts.append(part[names].astype({"series_id": "int32"}))
    return pa.Table.from_pandas(pd.concat(parts), preserve_index=False)
