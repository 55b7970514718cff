"""Carry bars from a source into the store, and write down how it went.

The two sides are apart, since they may be on two machines: `ask` goes to a source,
`Intake` to the store. `ingest` joins them in one process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from .changes import Changed
from .errors import BadData, SourceClosed, SourceDown, SourceError
from .interval import Interval, checked
from .ledger import DONE, STOPPED, Job, Known, Ledger, Request, Run, counted
from .progress import Progress, Quiet
from .provenance import INVENTED
from .screening import screen
from .sources import RawBars, Source, now
from .store import Store

# How much of what is stored is asked for again: corrections mostly come within days.
OVERLAP = {
    "1m": pd.Timedelta(days=1),
    "5m": pd.Timedelta(days=1),
    "1h": pd.Timedelta(days=2),
    "1d": pd.Timedelta(days=7),
}
# So many symbols in a row without an answer, and nobody else is asked.
IN_A_ROW = 3


@dataclass(frozen=True)
class Wish:
    """What is to be asked about one symbol; `start` None: all that there is."""

    symbol: str
    start: pd.Timestamp | None = None


@dataclass(frozen=True)
class Answer:
    """What a source said about one symbol: bars, or why there are none."""

    symbol: str
    began: int
    raw: RawBars | None = None
    problem: SourceError | None = None


@dataclass
class IngestReport:
    """What one run did.

    `changed` per symbol, a reason per symbol in `failed`; `waiting` counts bars that
    are not final yet, `resumed` symbols that the run had done before it was cut off.
    `stopped` says why the rest was not asked for.
    """

    source: str
    interval: str
    run: int = 0
    changed: dict[str, Changed] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: int = 0
    resumed: int = 0
    stopped: str = ""
    seconds: float = 0.0

    def total(self, what: str) -> int:
        """Return the sum of inserted, updated, unchanged, rejected or written."""
        return sum(getattr(one, what) for one in self.changed.values())

    @property
    def state(self) -> str:
        """Return done or stopped; a stopped run is gone on with by the next."""
        return STOPPED if self.stopped else DONE

    def as_json(self) -> dict[str, object]:
        """Return the report as values for JSON."""
        counts = ("inserted", "updated", "unchanged", "rejected")
        return {what: self.total(what) for what in counts} | {
            "waiting": self.waiting,
            "symbols": len(self.changed),
            "resumed": self.resumed,
            "source": self.source,
            "interval": self.interval,
            "run": self.run,
            "state": self.state,
            "stopped": self.stopped,
            "failed": self.failed,
            "seconds": round(self.seconds, 3),
        }


def ingest(
    store: Store,
    source: Source,
    symbols: Iterable[str] | None = None,
    *,
    interval: Interval = "1d",
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    full: bool = False,
    restart: bool = False,
    progress: Progress | None = None,
) -> IngestReport:
    """Fetch each symbol (all that the source offers by default) and merge it.

    Of a symbol with bars only what came after them is asked for, with OVERLAP to catch
    corrections; `start`, or `full`, asks for more. A run that was cut off is gone on
    with unless `restart`.

    A symbol that the source cannot answer, or whose frame is refused, is a line in
    `failed` and in the ledger; the others go on, unless the source answers nobody any
    more (`stopped`). Raises SourceError when the source cannot even list its symbols,
    and StoreError when the database fails.
    """
    begun, shown = time.monotonic(), progress or Quiet()
    request = requested(source, symbols, interval, start, end, full)
    intake = Intake.begin(store, source, request, restart=restart)
    shown.begin(len(intake.wishes), of=len(request.symbols))
    with shown:
        for answer in ask(source, request, intake.wishes):
            intake.take(answer)
            shown.step(answer.symbol, intake.said(answer.symbol))
            if intake.report.stopped:
                break
    intake.end()
    intake.report.seconds = time.monotonic() - begun
    return intake.report


def requested(
    source: Source,
    symbols: Iterable[str] | None,
    interval: str,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    full: bool,
) -> Request:
    """Return the request for these symbols, or for all that the source offers.

    Raises SourceError, and StoreError for an interval that nobody knows.
    """
    wanted = source.symbols() if symbols is None else list(dict.fromkeys(symbols))
    if not wanted:
        raise SourceError("no symbol was named", "name them: --symbols A,B")
    edges = ("" if each is None else each.isoformat() for each in (start, end))
    return Request(
        source.name, checked(interval), tuple(wanted), *edges, full or source.whole
    )


def plan(request: Request, known: dict[str, Known], run: Run) -> list[Wish]:
    """Return what is to be asked of the source, symbol by symbol. Pure."""
    wishes = []
    for name in request.symbols:
        if name in run.done:
            continue
        start = pd.Timestamp(request.start) if request.start else None
        stored = known.get(name)
        if start is None and stored and stored.last_ts is not None and not request.full:
            last = pd.Timestamp(stored.last_ts, unit="us", tz="UTC")
            start = last - OVERLAP[request.interval]
        wishes.append(Wish(name, start))
    return wishes


def ask(
    source: Source, request: Request, wishes: Sequence[Wish], down: int = 0
) -> Iterator[Answer]:
    """Ask a source about one symbol after the other.

    `down`: how many before the first had no answer. The last answer has a problem that
    is SourceClosed where the others need not be tried.
    """
    end = pd.Timestamp(request.end) if request.end else None
    earliest = source.earliest(request.interval)
    for wish in wishes:
        start, began = wish.start, _now()
        if start is not None and earliest is not None and not request.start:
            # What was stored ends before that: the gap can't be filled from here.
            start = max(start, earliest)
        try:
            raw = source.fetch(wish.symbol, request.interval, start, end)
        except SourceError as error:
            down = down + 1 if isinstance(error, SourceDown) else 0
            yield Answer(wish.symbol, began, problem=_worst(error, down))
            if down >= IN_A_ROW or isinstance(error, SourceClosed):
                return
        else:
            down = 0
            yield Answer(wish.symbol, began, raw)


def _worst(error: SourceError, down: int) -> SourceError:
    if down < IN_A_ROW:
        return error
    return SourceClosed(f"{error} ({down} symbols in a row)", error.hint)


class Intake:
    """The store's side of a run: what to ask for, and what becomes of the answers."""

    def __init__(
        self, store: Store, request: Request, run: Run, provenance: str
    ) -> None:
        self._store = store
        self._ledger = Ledger(store.access)
        self._request = request
        self._known = self._ledger.known(request.symbols, request.interval)
        self.wishes = plan(request, self._known, run)
        self.report = IngestReport(request.source, request.interval, run.id)
        self.report.resumed = len(request.symbols) - len(self.wishes)
        # Before the first bar: what is invented is never seen without its mark.
        store.set_meta(f"source:{request.source}", provenance)

    @classmethod
    def begin(
        cls, store: Store, source: Source, request: Request, *, restart: bool = False
    ) -> Intake:
        """Begin a run, or go on with one that was cut off."""
        run = Ledger(store.access).begin(request, _now(), restart=restart)
        return cls(store, request, run, source.provenance)

    def take(self, answer: Answer) -> None:
        """Merge an answer, or note why there is none.

        Raises StoreError when the database fails; what was merged stays merged.
        """
        name, message = answer.symbol, ""
        try:
            if answer.problem is not None or answer.raw is None:
                raise answer.problem or SourceError(f"nothing was said of {name}")
            self.report.changed[name] = self._merge(name, answer.raw)
        except (SourceError, BadData) as error:
            self.report.failed[name] = message = _sentence(error)
            if isinstance(error, SourceClosed):
                self.report.stopped = message
        changed = self.report.changed.get(name, Changed())
        if not message and changed.rejected and not _good(changed):
            message = f"all {changed.rejected} rows were refused"
            self.report.failed[name] = message
        job = Job(
            self.report.run,
            self._request.source,
            name,
            self._request.interval,
            answer.began,
            _now(),
            "failed" if message else "done",
            message=message,
        )
        self._ledger.note(replace(job, **counted(changed)))

    def said(self, name: str) -> str:
        """Return a line about one symbol: what changed, or why nothing did."""
        if name in self.report.failed:
            return f"failed: {self.report.failed[name]}"
        changed = self.report.changed[name]
        parts = [
            f"{count:,} {what}" for what, count in counted(changed).items() if count
        ]
        return ", ".join(parts) or "no bars"

    def end(self) -> None:
        """Write down how the run ended."""
        report = self.report
        self._ledger.end(report.run, report.state, _now(), report.stopped)

    def _merge(self, name: str, raw: RawBars) -> Changed:
        self._refuse_mixture(name)
        known = self._known.get(name)
        exchange = raw.about.get("exchange") or (known.exchange if known else "")
        screened = screen(
            raw.frame,
            raw.actions,
            self._request.interval,
            now=now(),
            exchange=exchange,
        )
        self.report.waiting += screened.waiting
        if known is None or raw.about:
            self._store.upsert_symbols(pd.DataFrame([dict(raw.about)], index=[name]))
        if raw.actions:
            # First: one that is ahead of its bars changes nothing yet, while bars
            # ahead of their split would show a jump that never was.
            self._store.upsert_actions(name, raw.actions)
        return self._store.upsert_bars(
            name,
            self._request.interval,
            screened.frame,
            source=self._request.source,
            refused=screened.rejects,
        )

    def _refuse_mixture(self, name: str) -> None:
        known = self._known.get(name)
        invented = self._request.source == INVENTED
        for other in known.sources if known else ():
            if (other == INVENTED) != invented:
                raise SourceError(
                    f"{name} holds bars from {other}; real and SYNTHETIC bars are "
                    f"never mixed",
                    "use another name, such as DEMO1",
                )


def _good(changed: Changed) -> int:
    return changed.inserted + changed.updated + changed.unchanged


def _sentence(error: SourceError | BadData) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _now() -> int:
    return time.time_ns() // 1000
