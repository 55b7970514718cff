"""Compare a new release with the old one by what both counted: pure.

The rules: under `FEWEST` requests there is no verdict, and an old release that counted
fewer is not compared with. A release fails when its share of server errors is a point
above the old one's, one error alone left aside, or when the time within which 95 of 100
requests are answered is over twice the old one's and over `SLOW`. Before the window is
over only what is clear counts: a share of errors that chance does not explain.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

FEWEST = 30
# Share of answers with a 5xx status that is allowed, above the old release's share.
ERRORS = 0.01
# Seconds; a release that answers faster than this is never called slow.
SLOW = 1.0
# So many times in a row a watched release may not be live, ready and itself, less one.
UNWELL = 2
# Questions in a row without an answer after which a release counts as gone.
SILENT = 3
# Standard deviations between what is seen and what chance may explain.
_CLEAR = 3.0

_LINE = re.compile(r"^(\w+)\{([^}]*)\} ([0-9.eE+-]+|\+Inf)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """What a release has counted: answers, server errors, answers by upper bound.

    `within` maps seconds to the answers that took at most that long.
    """

    answers: float = 0.0
    errors: float = 0.0
    within: Mapping[float, float] = field(default_factory=dict)

    def since(self, before: Sample) -> Sample:
        """Return what was counted after an earlier sample of the same release."""
        within = {
            bound: count - before.within.get(bound, 0.0)
            for bound, count in self.within.items()
        }
        return Sample(
            self.answers - before.answers, self.errors - before.errors, within
        )

    @property
    def error_share(self) -> float:
        return self.errors / self.answers if self.answers > 0 else 0.0

    @property
    def p95(self) -> float:
        """The least bound that 95 of 100 answers kept, in seconds."""
        total = max(self.within.values(), default=0.0)
        kept = [b for b, count in self.within.items() if count >= 0.95 * total]
        return min(kept, default=0.0) if total > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """PASS, FAIL or INCONCLUSIVE, and the sentence that says why."""

    state: str
    said: str


def parse(text: str) -> Sample:
    """Return what a Prometheus exposition says of answered requests."""
    answers = errors = 0.0
    within: Counter[float] = Counter()
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        name, labels, value = match[1], dict(_LABEL.findall(match[2])), float(match[3])
        if name == "http_requests_total":
            answers += value
            errors += value if labels.get("status", "").startswith("5") else 0.0
        elif name == "http_request_duration_seconds_bucket":
            within[float(labels["le"])] += value
    return Sample(answers, errors, dict(within))


def together(samples: Iterable[Sample]) -> Sample:
    """Return what a release has counted on several hosts."""
    answers = errors = 0.0
    within: Counter[float] = Counter()
    for sample in samples:
        answers, errors = answers + sample.answers, errors + sample.errors
        within.update(sample.within)
    return Sample(answers, errors, dict(within))


def judge(new: Sample, old: Sample, *, early: bool = False) -> Verdict:
    """Return the verdict on what a new release did, next to what the old one did.

    `early`: the window is not over, so only a clear no is a verdict.
    """
    if new.answers < FEWEST:
        said = f"{new.answers:.0f} requests are too few to judge by (under {FEWEST})"
        return Verdict("INCONCLUSIVE", said)
    if old.answers < FEWEST:
        old = Sample()
    allowed = old.error_share + ERRORS
    share = _least(new) if early else new.error_share
    if share > allowed and new.errors > 1:
        said = f"{new.error_share:.1%} of answers are errors, allowed {allowed:.1%}"
        return Verdict("FAIL", said)
    slow = max(SLOW, 2 * old.p95)
    if new.p95 > slow and not early:
        said = f"95 of 100 answers take up to {new.p95:g} s, allowed {slow:g} s"
        return Verdict("FAIL", said)
    said = (
        f"{new.answers:.0f} requests, {new.error_share:.1%} errors, p95 {new.p95:g} s"
    )
    return Verdict("PASS", said)


def _least(sample: Sample) -> float:
    """Return the least share of errors that chance allows for (Wilson's bound)."""
    n, share, z = sample.answers, sample.error_share, _CLEAR
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - spread) / (1 + z * z / n)
