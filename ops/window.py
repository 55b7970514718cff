"""Watch a new release next to the old one, for as long as a window lasts."""

from __future__ import annotations

import time
from collections.abc import Callable

from ops import watch
from ops.step import Step

# Seconds until what is doubtful is asked again.
_AGAIN = 0.25
# Asks a release on a host what it has counted; None where it does not say.
Counted = Callable[[str, int], "watch.Sample | None"]


class Comparison:
    """A new release watched next to the old one, over the same window.

    The old one is what other hosts still serve; where none does, the record of the
    one that stands by.
    """

    def __init__(
        self, step: Step, counted: Counted, problem: Callable[[], str] = lambda: ""
    ) -> None:
        self.step, self.counted, self.problem = step, counted, problem
        self.began = self._new()
        self.old = {host: self._old(host) for host in self._olds()}
        # How often in a row it gave no figures, and was not live, ready and itself.
        self.silent = self.unwell = 0

    def window(self) -> watch.Verdict:
        """Watch for one window; return early only with a clear no.

        What is doubtful when it ends is asked again until it is clear.
        """
        until = time.monotonic() + self.step.budget
        while True:
            left = until - time.monotonic()
            verdict = self.verdict(early=left > 0)
            doubt = self.silent or self.unwell
            if verdict.state == "FAIL" or (left <= 0 and not doubt):
                return verdict
            time.sleep(_AGAIN if doubt else min(left, 1.0))

    def verdict(self, early: bool) -> watch.Verdict:
        """Return what is to be said of the window so far."""
        new, problem = self._new(), self.problem()
        self.unwell = self.unwell + 1 if problem else 0
        if self.unwell >= watch.UNWELL:
            said = f"{problem}, {self.unwell} times in a row"
            return watch.Verdict("FAIL", said)
        self.silent = 0 if new else self.silent + 1
        self.began = self.began or new
        if new is None or self.began is None:
            # One question may get lost; a release that is gone answers none.
            state = "FAIL" if self.silent >= watch.SILENT else "INCONCLUSIVE"
            return watch.Verdict(state, "it does not answer at /metrics")
        if new.answers < self.began.answers:
            return watch.Verdict("FAIL", "it was started again")
        return watch.judge(new.since(self.began), self._beside(), early=early)

    def _beside(self) -> watch.Sample:
        """Return what the old release did meanwhile, or ever where nobody asks it."""
        if not self.step.peers:
            return watch.together(sample for sample in self.old.values() if sample)
        both = [(self._old(host), began) for host, began in self.old.items()]
        return watch.together(now.since(began) for now, began in both if now and began)

    def _olds(self) -> tuple[str, ...]:
        """Return the hosts on which the old release is compared with."""
        if self.step.against is None:
            return ()
        return self.step.peers or (self.step.host,)

    def _new(self) -> watch.Sample | None:
        return self.counted(self.step.host, self.step.release or 0)

    def _old(self, host: str) -> watch.Sample | None:
        return self.counted(host, self.step.against or 0)
