"""Remember which alerts there are, who was told, and which messages still wait.

All of it is one small file that is replaced as a whole, so whoever takes over from a
process that was killed knows what that one knew. A message leaves the file when its
channel has said yes. Killed between that yes and the write, it comes a second time:
some milliseconds in which twice was chosen over never.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mltrading_health.watch.evaluate import FIRING, Active, Alert, State, inhibited

log = logging.getLogger(__name__)
FORMAT = 1
#: Seconds before the second try, doubled with each one up to the last.
FIRST_PAUSE, LAST_PAUSE = 5.0, 300.0
#: Seconds after which a message that no channel took is given up.
GIVE_UP_S = 24 * 3600.0
#: Messages that may wait for one channel; the oldest goes if there are more.
MOST_WAITING = 100

Told = Mapping[Alert, float]


@dataclass(frozen=True, slots=True)
class Message:
    """Say to one channel that an alert fires or has ended.

    ``began`` and ``ended`` are seconds since 1970; ``made`` and ``not_before`` are
    times of the steady clock. ``to``: who has still to get it, for mail.
    """

    id: str
    channel: str
    firing: bool
    alert: str
    severity: str
    labels: tuple[tuple[str, str], ...]
    value: str
    limit: str
    summary: str
    hint: str
    runbook: str
    began: float
    ended: float | None
    made: float
    to: tuple[str, ...] = ()
    tries: int = 0
    not_before: float = 0.0

    @property
    def about(self) -> tuple[object, ...]:
        """Return which alert it is about."""
        return self.alert, self.severity, self.labels


def due(
    state: State, told: Told, now: float, repeat_s: Mapping[str, float]
) -> tuple[tuple[tuple[Alert, bool], ...], Told]:
    """Return of which alerts people must hear now, and who has been told then; pure.

    True with an alert says that it fires, False that it has ended. It looks at states
    and not at changes, so what could not be told once is told the next time. A warning
    whose critical alert fires is not told, but its end is, if its beginning was.
    ``repeat_s``: seconds until people are told again, by severity.
    """
    quiet = inhibited(state)
    news, after = [], dict(told)
    for alert, active in state.items():
        if active.phase != FIRING or alert in quiet:
            continue
        if alert not in told or now - told[alert] >= repeat_s[alert.severity]:
            news.append((alert, True))
            after[alert] = now
    for alert in told:
        if alert not in state or state[alert].phase != FIRING:
            news.append((alert, False))
            del after[alert]
    return tuple(news), after


class Book:
    """Keep state and messages in memory and in a file.

    A file that can't be written is logged and does not stop anything: a full disk is
    one of the things that have to be told.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path, self.clock = path, clock
        self.changed = threading.Condition()
        self.state: State = {}
        self.told: Told = {}
        self.waiting: tuple[Message, ...] = ()
        self._writable = True

    def open(self) -> None:
        """Read what an earlier process has left; times ahead of the clock are now."""
        try:
            said = json.loads(self.path.read_text(encoding="utf-8"))
            if said["format"] != FORMAT:
                raise ValueError(f"format {said['format']}")
            found = _left(said, self.clock())
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is of no use, beginning anew: %s", self.path.name, error)
            return
        self.state, self.told, self.waiting = found

    def record(self, state: State, told: Told, messages: Iterable[Message]) -> None:
        """Take in what an evaluation gave, and wake who sends."""
        with self.changed:
            self.state, self.told = state, told
            self.waiting = _bounded((*self.waiting, *messages))
            self._write()
            self.changed.notify_all()

    def next(self, channel: str) -> tuple[Message | None, float | None]:
        """Return a message to send now, or how long there is none (None: no end).

        Messages about one alert keep their order; others may overtake them.
        """
        now, soonest, seen = self.clock(), None, set()
        for message in self.waiting:
            if message.channel != channel or message.about in seen:
                continue
            seen.add(message.about)
            if message.not_before <= now:
                return message, None
            pause = message.not_before - now
            soonest = pause if soonest is None else min(soonest, pause)
        return None, soonest

    def sent(self, message: Message) -> None:
        """Forget a message that its channel took, or never will."""
        with self.changed:
            self.waiting = tuple(m for m in self.waiting if m.id != message.id)
            self._write()
            self.changed.notify_all()

    def put_off(
        self, message: Message, after: float = 0.0, to: tuple[str, ...] = ()
    ) -> bool:
        """Keep a message for a later try; False if it has been tried for a day.

        ``after``: seconds that the channel asked for. ``to``: who has not got it yet,
        everybody if empty.
        """
        now = self.clock()
        if now - message.made > GIVE_UP_S:
            self.sent(message)
            return False
        pause = min(FIRST_PAUSE * 2.0 ** min(message.tries, 10), LAST_PAUSE)
        later = replace(
            message,
            tries=message.tries + 1,
            not_before=now + max(pause, min(after, LAST_PAUSE)),
            to=to or message.to,
        )
        with self.changed:
            self.waiting = tuple(
                later if m.id == message.id else m for m in self.waiting
            )
            self._write()
        return True

    def _write(self) -> None:
        every = dict.fromkeys((*self.state, *self.told))
        document = {
            "format": FORMAT,
            "alerts": [self._entry(alert) for alert in every],
            "waiting": [asdict(message) for message in self.waiting],
        }
        fresh = self.path.with_suffix(".new")
        try:
            with open(fresh, "w", encoding="utf-8", opener=_private) as file:
                json.dump(document, file)
            os.replace(fresh, self.path)
        except OSError as error:
            if self._writable:
                log.warning(
                    "%s can't be written: %s; if this process ends now, people may be"
                    " told twice",
                    self.path.name,
                    error.strerror,
                )
            self._writable = False
        else:
            self._writable = True

    def _entry(self, alert: Alert) -> dict[str, Any]:
        active = self.state.get(alert)
        return {
            "alert": alert.name,
            "severity": alert.severity,
            "labels": sorted(alert.labels),
            "phase": active.phase if active else "",
            "since": active.since if active else 0.0,
            "value": active.value if active else 0.0,
            "told": self.told.get(alert),
        }


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _bounded(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Drop the oldest messages of a channel for which too many wait."""
    kept: list[Message] = []
    count: dict[str, int] = {}
    for message in reversed(messages):
        count[message.channel] = count.get(message.channel, 0) + 1
        if count[message.channel] <= MOST_WAITING:
            kept.append(message)
        else:
            log.error("too many messages wait for %s: %s", message.channel, message.id)
    return tuple(reversed(kept))


def _left(
    said: Mapping[str, Any], now: float
) -> tuple[State, Told, tuple[Message, ...]]:
    """Return what a document holds; raises KeyError, TypeError, ValueError."""
    alerts = [(_alert(each), each) for each in said["alerts"]]
    state = {
        alert: Active(each["phase"], min(each["since"], now), each["value"])
        for alert, each in alerts
        if each["phase"]
    }
    told = {
        alert: min(each["told"], now)
        for alert, each in alerts
        if each["told"] is not None
    }
    waiting = tuple(
        replace(
            message,
            made=min(message.made, now),
            not_before=min(message.not_before, now + LAST_PAUSE),
        )
        for message in map(_message, said["waiting"])
    )
    return state, told, waiting


def _alert(said: Mapping[str, Any]) -> Alert:
    labels = frozenset((str(name), str(text)) for name, text in said["labels"])
    return Alert(said["alert"], said["severity"], labels)


def _message(said: Mapping[str, Any]) -> Message:
    labels = tuple((str(name), str(text)) for name, text in said["labels"])
    return Message(**{**said, "labels": labels, "to": tuple(said["to"])})
