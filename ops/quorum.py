"""Who may act when only a part of an environment's hosts can be reached. Pure.

Whoever acts holds the lease of a strict majority of the hosts, or of exactly half of
them, the one whose name sorts first among them. Any two such sets share a host, and a
host gives its lease to one only: two who reach different parts never both act.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ops.errors import OpsError, Refused


def enough(hosts: Sequence[str], held: Collection[str]) -> bool:
    """Say whether leases of the hosts `held` allow to act on all of `hosts`."""
    have = len({*hosts} & {*held})
    return 2 * have > len(hosts) or (2 * have == len(hosts) and min(hosts) in held)


def needed(hosts: Sequence[str]) -> str:
    """Return the rule in words for these hosts."""
    most = len(hosts) // 2 + 1
    if len(hosts) == 1:
        return "its one host"
    if len(hosts) % 2:
        return f"{most} of {len(hosts)} hosts"
    return f"{most} of {len(hosts)} hosts, or {most - 1} with {min(hosts)} among them"


def refuse(hosts: Sequence[str], away: Mapping[str, str], environment: str) -> OpsError:
    """Return the refusal to act with too few hosts; `away` says why each is out."""
    several = len(hosts) > 1
    escape = (
        f"; only if they are gone for good: inv rollback --env {environment} "
        '--minority "why"'
        if several and len(away) < len(hosts)
        else ""
    )
    what = (
        f"{len(away)} of {len(hosts)} hosts can't be reached: somebody else may be "
        "acting there"
        if several
        else "the host can't be reached"
    )
    return Refused(
        what,
        where="; ".join(f"{name}: {why}" for name, why in away.items()),
        allowed=f"to act with the lease of {needed(hosts)}",
        next=f"inv doctor --env {environment}{escape}",
    )
