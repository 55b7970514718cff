"""Who is told of what, once, and what is left when a process ends."""

import json
import os

import pytest

from mltrading_health.watch.book import (
    GIVE_UP_S,
    LAST_PAUSE,
    MOST_WAITING,
    Book,
    Message,
    due,
)
from mltrading_health.watch.evaluate import FIRING, PENDING, Active, Alert
from tests.health.watch.given import labels

CRITICAL, WARNING = Alert("Errors", "critical"), Alert("Errors", "warning")
REPEAT = {"critical": 100.0, "warning": 1000.0}
FIRES, WAITS = Active(FIRING, 0.0, 0.5), Active(PENDING, 0.0, 0.5)


def message(id="m1", channel="slack", **more):
    said = {
        **dict(id=id, channel=channel, firing=True, alert="Errors"),
        **dict(severity="critical", labels=(("env", "prod"),), value="7 %"),
        **dict(limit="5 %", summary="they fail", hint="", runbook="", began=1.0),
        **dict(ended=None, made=0.0, to=("#alerts",)),
    }
    return Message(**{**said, **more})


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def book(tmp_path, clock):
    return Book(tmp_path / "watch.json", clock)


# -- due ------------------------------------------------------------------------------


def test_people_are_told_once_and_again_after_a_while():
    news, told = due({CRITICAL: FIRES}, {}, 10.0, REPEAT)
    assert (news, told) == (((CRITICAL, True),), {CRITICAL: 10.0})
    assert due({CRITICAL: FIRES}, told, 109.0, REPEAT) == ((), told)
    again = ((CRITICAL, True),), {CRITICAL: 110.0}
    assert due({CRITICAL: FIRES}, told, 110.0, REPEAT) == again


def test_the_end_is_told_once_to_those_who_heard_of_the_beginning():
    assert due({}, {CRITICAL: 1.0}, 2.0, REPEAT) == (((CRITICAL, False),), {})
    assert due({}, {}, 3.0, REPEAT) == ((), {})


def test_what_is_pending_is_not_told():
    assert due({CRITICAL: WAITS}, {}, 1.0, REPEAT) == ((), {})


def test_an_alert_that_comes_back_at_once_has_ended_and_begun():
    assert due({CRITICAL: WAITS}, {CRITICAL: 1.0}, 2.0, REPEAT)[0] == (
        (CRITICAL, False),
    )


def test_a_warning_is_silent_while_the_critical_alert_fires():
    both = {WARNING: FIRES, CRITICAL: FIRES}
    news, told = due(both, {}, 1.0, REPEAT)
    assert news == ((CRITICAL, True),)
    news, told = due({WARNING: FIRES}, told, 2.0, REPEAT)
    assert set(news) == {(WARNING, True), (CRITICAL, False)}


def test_a_warning_that_was_told_is_told_to_have_ended():
    _, told = due({WARNING: FIRES}, {}, 1.0, REPEAT)
    _, told = due({WARNING: FIRES, CRITICAL: FIRES}, told, 2.0, REPEAT)
    news, _ = due({}, told, 3.0, REPEAT)
    assert set(news) == {(WARNING, False), (CRITICAL, False)}


# -- the file -------------------------------------------------------------------------


def test_a_heir_knows_what_the_other_knew(book, tmp_path, clock):
    disk = Alert("LowDisk", "critical", labels(disk="a", env="prod"))
    state = {disk: FIRES, CRITICAL: WAITS}
    book.record(state, {disk: 5.0}, [message(to=("a@b", "c@d"))])
    clock.now = 9.0
    heir = Book(tmp_path / "watch.json", clock)
    heir.open()
    assert (heir.state, heir.told) == (state, {disk: 5.0})
    assert heir.waiting == book.waiting


def test_times_ahead_of_the_clock_are_now(book, tmp_path, clock):
    clock.now = 1000.0
    state = {CRITICAL: Active(FIRING, 990.0, 0.5)}
    book.record(state, {CRITICAL: 990.0}, [message(made=990.0, not_before=99999.0)])
    clock.now = 3.0
    heir = Book(tmp_path / "watch.json", clock)
    heir.open()
    assert heir.state[CRITICAL].since == heir.told[CRITICAL] == 3.0
    assert heir.waiting[0].made == 3.0
    assert heir.waiting[0].not_before == 3.0 + LAST_PAUSE


BENT = '{"format": 1, "waiting": [], "alerts": [{"alert": "A", "severity": "critical", '
BENT += '"labels": [], "phase": "firing", "since": "long ago", "told": null}]}'


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 9}', '{"format": 1}', BENT]
)
def test_a_file_of_no_use_is_a_new_beginning(book, text, caplog):
    book.path.write_text(text)
    book.open()
    assert book.state == {} and "beginning anew" in caplog.text


def test_no_file_is_no_warning(book, caplog):
    book.open()
    assert caplog.text == ""


def test_the_file_is_for_its_owner_only(book):
    book.record({}, {}, [])
    assert os.stat(book.path).st_mode & 0o777 == 0o600


def test_a_full_disk_is_said_once_and_stops_nothing(book, tmp_path, caplog):
    book.path = tmp_path / "gone" / "watch.json"
    book.record({CRITICAL: FIRES}, {}, [message()])
    book.record({CRITICAL: FIRES}, {}, [])
    assert caplog.text.count("can't be written: No such file or directory") == 1
    assert book.next("slack")[0] == message()
    book.path.parent.mkdir()
    book.sent(message())
    assert json.loads(book.path.read_text())["waiting"] == []


# -- what waits -----------------------------------------------------------------------


def test_a_message_waits_longer_after_each_try(book, clock):
    book.record({}, {}, [message()])
    pauses = []
    for _ in range(9):
        found, _ = book.next("slack")
        assert book.put_off(found)
        assert book.next("slack") == (None, book.waiting[0].not_before - clock.now)
        pauses.append(book.waiting[0].not_before - clock.now)
        clock.now = book.waiting[0].not_before
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_channel_may_ask_for_a_longer_pause_within_bounds(book):
    for asked, pause in ((1.0, 5.0), (60.0, 60.0), (1e9, LAST_PAUSE)):
        book.record({}, {}, [message(id=str(asked))])
        book.put_off(message(id=str(asked)), asked)
        assert book.waiting[0].not_before == pause
        book.sent(message(id=str(asked)))


def test_a_message_is_given_up_after_a_day(book, clock):
    book.record({}, {}, [message()])
    clock.now = GIVE_UP_S + 1
    assert not book.put_off(message())
    assert book.waiting == ()


def test_messages_of_one_alert_keep_their_order_others_overtake(book):
    first, second = message("1"), message("2", firing=False)
    other = message("3", alert="LowDisk")
    book.record({}, {}, [first, second, other, message("4", channel="mail")])
    book.put_off(first)
    assert book.next("slack")[0] == other
    book.sent(other)
    assert book.next("slack") == (None, 5.0)
    book.sent(first)
    assert book.next("slack")[0] == second


def test_who_has_got_it_is_not_asked_again(book):
    book.record({}, {}, [message(to=("a@b", "c@d"))])
    book.put_off(book.waiting[0], to=("c@d",))
    book.put_off(book.waiting[0])
    assert book.waiting[0].to == ("c@d",)


def test_the_number_that_waits_is_bounded(book, caplog):
    every = [message(str(i)) for i in range(MOST_WAITING + 3)]
    book.record({}, {}, [*every, message("mail", channel="mail")])
    assert len(book.waiting) == MOST_WAITING + 1
    assert book.next("slack")[0] == every[3]
    assert caplog.text.count("too many messages wait for slack") == 3
