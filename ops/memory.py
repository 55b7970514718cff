"""One history from the journals of several hosts, of which some were away. Pure.

Whoever acts holds the lease of most hosts, under an epoch that is higher than any
before, and each event says under which epoch it was written. So the events of all
hosts, in the order of their epochs, are what happened: what a later epoch says of a
run has the last word, whichever host it was told to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ops.history import Event


def identity(event: Event) -> str:
    """Return what is the same for one event in every host's journal."""
    return str(event.get("id") or event.get("origin") or event["hash"])


def union(journals: Iterable[Sequence[Event]]) -> tuple[Event, ...]:
    """Return all events that any of the journals holds, each once, in order."""
    found: dict[str, Event] = {}
    for journal in journals:
        for event in journal:
            found.setdefault(identity(event), event)
    return ordered(tuple(found.values()), sure=False)


def lacking(journal: Sequence[Event], whole: Iterable[Event]) -> tuple[Event, ...]:
    """Return the events of the whole that a journal does not hold, in order."""
    known = {identity(event) for event in journal}
    return tuple(event for event in whole if identity(event) not in known)


def ordered(events: Sequence[Event], *, sure: bool = True) -> tuple[Event, ...]:
    """Return events in the order in which they happened.

    Where it is `sure` that they come from one journal, only one that was caught up with
    others can be out of order. Ids sort by who wrote them and in which order.
    """
    if sure and not any("origin" in event for event in events):
        return tuple(events)
    return tuple(
        sorted(events, key=lambda event: (event.get("epoch", 0), event.get("id", "")))
    )
