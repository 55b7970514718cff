"""Carry an ingestion over two machines: one reaches the source, one the database.

Where `inv ingest` is typed there are the files, the key of a provider and the packages
that read both; where the release runs there is the database. In between travels a
folder: carry.json and one .npz of plain numbers per symbol (never a pickle).

    typed here          a folder                  where the database is
    describe     ->     request                   -> begin: wishes
    gather       ->     carry.json, 0.npz, ...    -> merge: counts
    gather ...          until no wish is left
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from .adjustment import Action
from .errors import BadData, SourceClosed, SourceDown, SourceError, StoreError
from .ingestion import Answer, IngestReport, Intake, Wish, ask, plan, requested
from .ledger import Ledger, Request, Run
from .progress import Progress
from .screening import screen
from .sources import RawBars, Source, now
from .store import Store

FORMAT = 1
# One folder holds at most so much, and is at most so old, before it is sent: what was
# sent is safe.
LARGEST = 64 * 2**20
LONGEST_S = 60.0
MOST = 200
NAMES = ("open", "high", "low", "close", "volume")
_PROBLEMS = {each.__name__: each for each in (SourceError, SourceDown, SourceClosed)}


def describe(
    source: Source,
    symbols: Sequence[str] | None,
    interval: str,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    full: bool,
) -> dict[str, Any]:
    """Return what is asked of the source as values for JSON."""
    return requested(source, symbols, interval, start, end, full).as_json()


def request_of(said: Any) -> Request:
    """Return the request in a JSON object; StoreError where it is none."""
    try:
        values = dict(said)
        return Request(**values | {"symbols": tuple(map(str, values["symbols"]))})
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the request can't be read: {error}", _OTHER) from error


_OTHER = "bring both sides to the same release: inv deploy"


def begin(
    store: Store, request: Request, *, restart: bool, dry_run: bool
) -> dict[str, Any]:
    """Begin a run, or go on with one; return its number and what is to be asked."""
    ledger, at = Ledger(store.access), time.time_ns() // 1000
    if dry_run:
        run = (None if restart else ledger.open_run(request, at)) or Run(0)
    else:
        run = ledger.begin(request, at, restart=restart)
    wishes = plan(request, ledger.known(request.symbols, request.interval), run)
    return {
        "run": run.id,
        "resumed": len(request.symbols) - len(wishes),
        "wishes": [
            {"symbol": one.symbol, "start": one.start and one.start.isoformat()}
            for one in wishes
        ],
    }


def gather(
    source: Source,
    state: dict[str, Any],
    folder: Path,
    progress: Progress,
    *,
    largest: int = LARGEST,
    longest_s: float = LONGEST_S,
) -> dict[str, Any]:
    """Ask for the next wishes, write what came to `folder`; return the state after.

    `state`: request, run, wishes, and `down` from the last time. Ends early where the
    folder is full, or where the source answers nobody any more.
    """
    request = request_of(state["request"])
    wishes = [_wish(one) for one in state["wishes"]]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    items: list[dict[str, Any]] = []
    size, down, closed, begun = 0, int(state.get("down", 0)), False, time.monotonic()
    progress.begin(len(wishes), of=len(request.symbols))
    with progress:
        for answer in ask(source, request, wishes, down):
            item, text = _item(answer, folder / f"{len(items)}.npz", request)
            down = down + 1 if isinstance(answer.problem, SourceDown) else 0
            closed = isinstance(answer.problem, SourceClosed)
            progress.step(answer.symbol, text)
            items.append(item)
            size += item["bytes"]
            late = time.monotonic() - begun > longest_s
            if size >= largest or late or len(items) >= MOST:
                break
    left = [] if closed else state["wishes"][len(items) :]
    said = {
        "format": FORMAT,
        "request": request.as_json(),
        "run": state["run"],
        "provenance": source.provenance,
        "items": items,
        "last": not left,
    }
    (folder / "carry.json").write_text(json.dumps(said))
    counts = ("bars", "rejected", "waiting")
    return {
        **state,
        "wishes": left,
        "down": down,
        "gathered": {name: sum(item[name] for item in items) for name in counts}
        | {"symbols": len(items), "bytes": size},
        "failed": {
            item["symbol"]: item["problem"]["said"]
            for item in items
            if item.get("problem")
        },
    }


def merge(store: Store, folder: Path) -> IngestReport:
    """Merge the bars in a folder that `gather` wrote; the last one ends the run."""
    said = _carried(folder)
    request = request_of(said["request"])
    run = Run(int(said["run"]), frozenset())
    intake = Intake(store, request, run, str(said["provenance"]))
    intake.report.resumed = 0
    for answer in _answers(said["items"], folder):
        intake.take(answer)
    if said["last"]:
        intake.end()
    return intake.report


def _carried(folder: Path) -> dict[str, Any]:
    try:
        said = json.loads((folder / "carry.json").read_text())
        if said["format"] != FORMAT:
            raise ValueError(f"it is of format {said['format']}, known is {FORMAT}")
        return said
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{folder}/carry.json can't be read: {error}", _OTHER
        ) from None


def _item(answer: Answer, path: Path, request: Request) -> tuple[dict[str, Any], str]:
    """Write an answer's bars; return what is said of them, and a line for people."""
    item: dict[str, Any] = {"symbol": answer.symbol, "began": answer.began}
    item |= {"bars": 0, "rejected": 0, "waiting": 0, "bytes": 0}
    raw = answer.raw
    problem: StoreError | None = answer.problem
    if raw is not None:
        try:
            found = screen(
                raw.frame,
                raw.actions,
                request.interval,
                now=now(),
                exchange=raw.about.get("exchange", ""),
            )
        except BadData as error:
            problem = SourceError(str(error), error.hint)
        else:
            write_bars(path, raw.frame)
            item |= {
                "file": path.name,
                "bytes": path.stat().st_size,
                "actions": [asdict(one) for one in raw.actions],
                "about": dict(raw.about),
                "bars": len(found.columns["ts"]),
                "rejected": len(found.rejects),
                "waiting": found.waiting,
            }
    if problem is not None:
        kind = type(problem).__name__
        said = f"{problem} ({problem.hint})" if problem.hint else str(problem)
        item["problem"] = {"kind": kind, "said": said}
        return item, f"failed: {said}"
    rejected = f", {item['rejected']:,} rejected" if item["rejected"] else ""
    return item, f"{item['bars']:,} bars{rejected}"


def _answers(items: list[dict[str, Any]], folder: Path) -> Iterator[Answer]:
    for item in items:
        symbol, began = str(item["symbol"]), int(item["began"])
        if problem := item.get("problem"):
            kind = _PROBLEMS.get(problem["kind"], SourceError)
            yield Answer(symbol, began, problem=kind(str(problem["said"])))
            continue
        actions = [Action(**one) for one in item["actions"]]
        frame = read_bars(folder / Path(item["file"]).name)
        yield Answer(symbol, began, RawBars(frame, actions, item["about"]))


def _wish(said: dict[str, Any]) -> Wish:
    start = said["start"]
    return Wish(said["symbol"], pd.Timestamp(start) if start else None)


def write_bars(path: Path | Any, frame: pd.DataFrame) -> None:
    """Write bars as .npz: ts in microseconds since 1970 UTC, all else float64.

    `path` may be a file that is open for writing bytes.
    """
    columns = {"ts": frame.index.tz_convert("UTC").as_unit("us").asi8}
    columns |= {name: frame[name].to_numpy(np.float64) for name in NAMES}
    # numpy's own writer compresses at a level that takes five times as long.
    packed = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", packed, compresslevel=1) as archive:
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, column, allow_pickle=False)


def read_bars(path: Path | Any) -> pd.DataFrame:
    """Return bars that `write_bars` wrote; StoreError where they are none."""
    try:
        with np.load(path, allow_pickle=False) as found:
            columns = {name: found[name] for name in ("ts", *NAMES)}
        index = pd.DatetimeIndex(columns.pop("ts").view("M8[us]"), tz="UTC", name="ts")
        return pd.DataFrame(columns, index=index)
    except (EOFError, OSError, KeyError, TypeError, ValueError, BadZipFile) as error:
        raise StoreError(f"{path} holds no bars: {error}") from error
