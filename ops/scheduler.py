"""Run pieces of work side by side: longest first, each after what it needs.

Results come back in the caller's thread, one by one as they are there, so what is
done is kept also when the rest is interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ops import shell

# Seconds between two looks of whoever watches.
TICK = 0.1


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work: `name` may be shared by several, such as a gate's batches.

    `expected` is in seconds, from earlier runs; `after` are the names of jobs that
    must have ended.
    """

    name: str
    act: Callable[[], Any]
    expected: float = 1.0
    after: tuple[str, ...] = ()


def order(jobs: Sequence[Job], ended: frozenset[str]) -> list[Job]:
    """Return the jobs that may begin once these names have ended, longest first."""
    free = [job for job in jobs if set(job.after) <= ended]
    return sorted(free, key=lambda job: -job.expected)


def side_by_side(
    jobs: Sequence[Job],
    limit: int | None = None,
    *,
    begun: Callable[[Job], None] = lambda job: None,
    tick: Callable[[], None] | None = None,
) -> Iterator[tuple[Job, Any]]:
    """Run all jobs, at most `limit` at once, and yield each with its result.

    `begun` is told of each start, in the job's thread; `tick` is called ten times a
    second. Whoever stops reading, by an error or an interrupt, ends what runs.

    Raises:
        ValueError: a job waits for a name that is not there or, in a ring, for itself.
        Exception: what a job raised.
    """
    if not jobs:
        return
    _check(jobs)
    from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

    waiting, left = list(jobs), _count(jobs)
    pool = ThreadPoolExecutor(limit or os.cpu_count() or 2)
    under_way: dict[Future[Any], Job] = {}
    stopping = threading.Event()

    def act(job: Job) -> Any:
        if stopping.is_set():
            return None
        begun(job)
        return job.act()

    def submit() -> None:
        ended = frozenset(name for name, count in left.items() if not count)
        for job in order(waiting, ended):
            waiting.remove(job)
            under_way[pool.submit(act, job)] = job

    try:
        with _terminable():
            submit()
            while under_way:
                pause = TICK if tick else None
                done, _ = wait(under_way, pause, return_when=FIRST_COMPLETED)
                for future in done:
                    job = under_way.pop(future)
                    result = future.result()
                    left[job.name] -= 1
                    yield job, result
                if tick:
                    tick()
                submit()
    finally:
        stopping.set()
        while under_way:
            shell.end_all()
            for future in wait(under_way, TICK).done:
                del under_way[future]
        pool.shutdown(cancel_futures=True)


def _count(jobs: Sequence[Job]) -> dict[str, int]:
    names = [job.name for job in jobs]
    return {name: names.count(name) for name in names}


def _check(jobs: Sequence[Job]) -> None:
    """Refuse a graph that could not come to its end."""
    needs = {job.name: set[str]() for job in jobs}
    for job in jobs:
        needs[job.name] |= set(job.after)
    unknown = set().union(*needs.values()) - set(needs)
    if unknown:
        raise ValueError(f"no job is named {', '.join(sorted(unknown))}")
    while needs:
        free = {name for name, after in needs.items() if not after & set(needs)}
        if not free:
            raise ValueError(f"a ring: {', '.join(sorted(needs))} wait for each other")
        needs = {name: after for name, after in needs.items() if name not in free}


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM and a lost terminal end the block the way Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is signal.SIG_DFL:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
