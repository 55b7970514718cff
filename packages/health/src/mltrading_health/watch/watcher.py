"""Watch a service from the inside: one worker of all, one look every interval."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mltrading_health.watch.book import Book, Message, due
from mltrading_health.watch.elect import Seat
from mltrading_health.watch.evaluate import (
    FIRING,
    PENDING,
    RESOLVED,
    Alert,
    State,
    Transition,
    adopted,
    evaluate,
)
from mltrading_health.watch.notify import Channel, Courier
from mltrading_health.watch.rules import Alerts
from mltrading_health.watch.series import History, Samples

log = logging.getLogger(__name__)
# How often one that does not serve looks whether it does now.
IDLE_S = 1.0
# After how long one tries anew that could not watch.
RETRY_S = 30.0
LEVELS = {PENDING: logging.INFO, FIRING: logging.ERROR, RESOLVED: logging.WARNING}


class Watcher:
    """Evaluate the rules in a thread, if this process is the one that is elected.

    ``snapshot`` gives all samples of the service, summed over its workers. ``labels``
    say where it runs; they are part of every alert. ``folder`` is shared by the workers
    of one service and nobody else: it holds the lock (watch.lock) and what the elected
    one knows (watch.json). ``clock`` must be the same for all processes of a machine,
    and never go back. ``serves`` says whether this service has traffic now: one that
    stands by leaves the watch to the one that serves, which may share its folder.
    """

    def __init__(
        self,
        alerts: Alerts,
        snapshot: Callable[[], Samples],
        channels: Sequence[Channel],
        folder: Path,
        labels: Mapping[str, str],
        *,
        serves: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.serves = serves
        self.alerts, self.snapshot, self.labels = alerts, snapshot, dict(labels)
        self.clock, self.wall = clock, wall
        self.rules = {(rule.alert, rule.severity): rule for rule in alerts.rules}
        self.seat = Seat(folder / "watch.lock")
        self.book = Book(folder / "watch.json", clock)
        self.channels = {channel.name: channel for channel in channels}
        self.history = History(alerts.rules)
        self.state: State = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Stand for election in a daemon thread; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, if this is the elected one; one that waits ends with its process."""
        self._stopped.set()
        if self.seat.taken:
            self._thread.join()

    def _run(self) -> None:
        """Stand for election until this is stopped, whatever goes wrong meanwhile."""
        said = ""
        while not self._stopped.is_set():
            try:
                if self.serves():
                    self._sit()
                pause, said = IDLE_S, ""
            except OSError as error:
                pause, before = RETRY_S, said
                said = f"{self.seat.path}: {error.strerror}"
                if said != before:
                    log.error("no alerts from here for now: %s", said)
            except Exception:
                pause = RETRY_S
                log.exception("the watch broke off, and begins anew")
            self._stopped.wait(pause)

    def _sit(self) -> None:
        """Wait for the seat and watch; give it to others, whatever happens."""
        self.seat.take()
        try:
            # It may have waited for days, and serve no more.
            if self.serves():
                self._watch()
        finally:
            self.seat.leave()

    def _watch(self) -> None:
        """Have people told, and look, until this is stopped or serves no more."""
        self.begin()
        with contextlib.ExitStack() as ending:
            for channel in self.channels.values():
                courier = Courier(channel, self.book)
                courier.start()
                ending.callback(courier.stop)
            self._look_on()

    def _look_on(self) -> None:
        """Look at every interval, until this is stopped or serves no more."""
        at, interval = self.clock(), self.alerts.interval_s
        beat = math.floor(at / interval)
        while not self._stopped.is_set() and self.serves():
            try:
                self.look(at)
            except Exception:
                # A look that fails must not be the last. It changes nothing: alerts
                # stay what they were, as nobody knows better.
                log.exception("the alerts could not be evaluated")
            self._rest((beat + 1) * interval)
            # A look is of the beat that it is for, though it is always a little late:
            # else 30 s would be four looks of 10 s on every other time. The beats are
            # the same for all processes, and those that were missed are left out.
            beat = max(beat + 1, math.floor(self.clock() / interval))
            at = beat * interval

    def _rest(self, until: float) -> None:
        """Wait for the next look; who serves no more does not wait for it."""
        while (left := until - self.clock()) > 0 and self.serves():
            if self._stopped.wait(min(left, IDLE_S)):
                return

    def begin(self) -> None:
        """Take over what the one before has left."""
        self.history = History(self.alerts.rules)
        self.book.open()
        self.state = adopted(self.book.state, self.clock())
        fire = sum(active.phase == FIRING for active in self.state.values())
        log.info(
            "this worker watches %d rules every %g s; %d alerts fire; by %s",
            len(self.rules),
            self.alerts.interval_s,
            fire,
            ", ".join(self.channels) or "nothing but this log",
        )
        if self.alerts.left_out:
            log.info("left to Prometheus: %s", ", ".join(self.alerts.left_out))

    def look(self, at: float) -> tuple[Transition, ...]:
        """Take a snapshot, evaluate all rules as of a time, and have people told."""
        self.history.add(at, self.snapshot())
        state, changes = evaluate(self.alerts.rules, self.history, at, self.state)
        news, told = due(state, self.book.told, at, self.alerts.repeat_s)
        messages = [
            message
            for alert, firing in news
            for message in self._messages(alert, firing, state)
        ]
        moved = _phases(state) != _phases(self.state)
        self.state = state
        if moved or news:
            self.book.record(state, told, messages)
        for change in changes:
            self._log(change)
        return changes

    def _messages(self, alert: Alert, firing: bool, state: State) -> Iterable[Message]:
        """Yield what the channels are to say about an alert."""
        rule = self.rules.get((alert.name, alert.severity))
        active = state.get(alert) if firing else self.state.get(alert)
        now, wall = self.clock(), self.wall()
        since = active.since if active else now
        for channel in self.channels.values():
            people = channel.people(alert.severity)
            if not people:
                continue
            yield Message(
                id=uuid.uuid4().hex,
                channel=channel.name,
                firing=firing,
                alert=alert.name,
                severity=alert.severity,
                labels=tuple(sorted({**dict(alert.labels), **self.labels}.items())),
                value=rule.said(active.value) if rule and active else "",
                limit=rule.said(rule.threshold) if rule else "",
                summary=rule.summary if rule else "this rule is no more",
                hint=rule.hint.replace("{env}", self.labels["env"]) if rule else "",
                runbook=rule.runbook if rule else "",
                began=wall - (now - since),
                ended=None if firing else wall,
                made=now,
                to=people,
            )

    def _log(self, change: Transition) -> None:
        rule = self.rules.get((change.alert.name, change.alert.severity))
        about = ", ".join(
            f"{name} {text}" for name, text in sorted(change.alert.labels)
        )
        log.log(
            LEVELS[change.to],
            "alert %s: %s %s%s: %s",
            change.to,
            change.alert.severity,
            change.alert.name,
            f" ({about})" if about else "",
            rule.said(change.value) if rule else "its rule is no more",
        )


def _phases(state: State) -> dict[Alert, str]:
    return {alert: active.phase for alert, active in state.items()}
