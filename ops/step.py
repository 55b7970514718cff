"""What is to be done: steps, and the plan that holds them in order. Values only."""

from __future__ import annotations

from dataclasses import dataclass

# The steps before this one leave traffic alone; a failure after it needs a revert.
SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class Step:
    """One intention on one host: a verb of the house, a release, a sentence.

    Steps of one `stage` may go on side by side on different hosts, in order on each.
    `against` is the release to compare with, on the hosts that still serve it
    (`peers`) or by the record of the one that stands by; `within` the revisions that a
    migration may bring the database to, such as 0001-0099, and `hosts` how many hosts
    will ask that database for connections. `share`: percent of the
    traffic that the host gets, None for its usual part. `strict`: too little traffic
    to judge by is a no. `days`: how long ago what goes was set aside. An `optional`
    step may fail without making the deploy fail: traffic is safe.
    """

    verb: str
    host: str
    text: str
    release: int | None = None
    budget: float = 10.0
    optional: bool = False
    stage: int = 0
    against: int | None = None
    within: str = ""
    hosts: int = 1
    peers: tuple[str, ...] = ()
    share: int | None = None
    strict: bool = False
    days: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered intentions, printable; `release` gets traffic, `previous` had it."""

    op: str
    environment: str
    steps: tuple[Step, ...]
    release: int | None = None
    previous: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.steps

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts that something is done on."""
        return frozenset(step.host for step in self.steps)
