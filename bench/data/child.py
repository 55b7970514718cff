"""Processes of their own: one that reads and says what it took, one that watches."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def memory(asked: dict[str, Any]) -> None:
    """Print how many bytes the peak grew by one read."""
    # The peers are on the path of whoever started this.
    sys.path += [place for place in asked["path"] if place not in sys.path]
    read = _reader(asked)
    before = _status("VmRSS")
    frame = read()
    print(_status("VmHWM") - before)
    assert len(frame)  # nosec B101


def _reader(asked: dict[str, Any]) -> Callable[[], Any]:
    """Return what reads; all that it needs is loaded and has been used once."""
    if asked["kind"] == "ours":
        from mltrading_marketdata import open_store

        store = open_store(asked["url"])
        store.bars(asked["symbol"], "1980-01-01", "1980-01-02", interval="1m")
        return lambda: store.bars(asked["symbol"], interval="1m")
    few = f"SELECT * FROM ({asked['query']}) AS few LIMIT 10"
    if asked["kind"] == "adbc":
        from adbc_driver_postgresql import dbapi

        cursor = dbapi.connect(asked["url"]).cursor()

        def adbc(query: str) -> Any:
            cursor.execute(query)
            return cursor.fetch_arrow_table().to_pandas()

        adbc(few)
        return lambda: adbc(asked["query"])
    import pandas as pd
    import sqlalchemy as sa

    url = asked["url"].replace("postgresql://", "postgresql+psycopg://", 1)
    connection = sa.create_engine(url).connect()
    pd.read_sql(sa.text(few), connection)
    return lambda: pd.read_sql(sa.text(asked["query"]), connection)


def _status(name: str) -> int:
    """Return a figure of this process in bytes.

    Not ru_maxrss: that begins with the size of whoever started this process.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def watch(asked: dict[str, Any]) -> None:
    """Print the moment (monotonic) of each new last bar, so many times."""
    from mltrading_marketdata import open_store

    with open_store(asked["url"]) as store:
        known = store.bars(asked["symbol"]).index[-1]
        print("ready", flush=True)
        for _ in range(asked["times"]):
            while (last := store.bars(asked["symbol"]).index[-1]) == known:
                time.sleep(0.005)
            known = last
            print(time.monotonic(), flush=True)


if __name__ == "__main__":
    said = json.loads(sys.stdin.readline())
    {"memory": memory, "watch": watch}[sys.argv[1]](said)
