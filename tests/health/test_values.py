"""Values live in files, in prometheus-client's format, and move with the slot."""

import errno
import os
import threading

import pytest
from prometheus_client.mmap_dict import MmapedDict

from mltrading_health import slot, values
from mltrading_health.values import FIRST_SIZE, stored


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return what makes a value in a folder of its own."""
    monkeypatch.setattr(slot, "taken", [])
    monkeypatch.setattr(slot, "_current", slot.MASTER)
    value = stored(tmp_path)

    def make(name, kind="counter", mode="", **labels):
        names, found = tuple(labels), tuple(labels.values())
        return value(kind, name, name, names, found, "Help.", multiprocess_mode=mode)

    yield make
    for file in value.of._files.values():
        file.close()


def read(path):
    values = MmapedDict.read_all_values_from_file(path)
    return {key.split('"')[1]: (value, at) for key, value, at, _ in values}


def test_a_value_is_in_its_file_at_once(make, tmp_path):
    orders, load = make("orders"), make("load", "gauge", "livemostrecent")
    orders.inc(2.0)
    orders.inc(0.5)
    load.set(7.0, timestamp=9.0)
    assert read(tmp_path / "counter_master.db") == {"orders": (2.5, 0.0)}
    assert read(tmp_path / "gauge_livemostrecent_master.db") == {"load": (7.0, 9.0)}
    assert orders.get() == 2.5 and orders.get_exemplar() is None


def test_a_worker_goes_on_in_the_files_of_its_slot(make, tmp_path):
    orders = make("orders")
    for name in ("0", "1", "0"):
        slot.take(name)
        orders.inc(1.0)
    counts = [read(tmp_path / f"counter_{name}.db")["orders"][0] for name in "01"]
    assert counts == [2.0, 1.0] and orders.get() == 2.0
    assert read(tmp_path / "counter_master.db")["orders"][0] == 0.0


def test_a_worker_does_not_wait_for_a_lock_that_stayed_behind(make):
    orders = make("orders")
    orders.of.lock.acquire()  # by a thread of the process that forked
    slot.take("0")
    orders.inc(1.0)
    assert orders.get() == 1.0


def test_a_file_that_grows_loses_nothing(make, tmp_path):
    first = make("first")
    many = [make(f"n{number}", symbol="x" * 1000) for number in range(200)]
    for value in (first, *many, first):
        value.inc(1.0)
    path = tmp_path / "counter_master.db"
    assert path.stat().st_size > 2 * 65_536
    found = read(path)
    assert found.pop("first") == (2.0, 0.0)
    assert len(found) == 200 and set(found.values()) == {(1.0, 0.0)}


def test_threads_lose_no_count(make, tmp_path):
    count, total, bucket = make("count"), make("total"), make("bucket")
    busy = make("busy", "gauge", "livesum")
    answered = count.of.answered

    def serve():
        for _ in range(2_000):
            busy.inc(1.0)
            answered(count, total, bucket, busy, 0.5)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read(tmp_path / "counter_master.db")
    assert {name: value for name, (value, _) in found.items()} == {
        **{"count": 8_000, "total": 4_000, "bucket": 8_000}
    }
    assert read(tmp_path / "gauge_livesum_master.db")["busy"][0] == 0


@pytest.fixture
def full(monkeypatch):
    """Return what fills the disk, and makes room again."""
    really = os.posix_fallocate

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(yes):
        monkeypatch.setattr(values.os, "posix_fallocate", refuse if yes else really)

    return full


def test_a_file_has_its_room_before_it_is_written_to(make, tmp_path):
    path = tmp_path / "counter_master.db"
    for number in range(800):
        make(f"orders_{number:0100d}")
    said = os.stat(path)
    # A hole would be filled later, and kill the process if the disk is full then.
    assert said.st_blocks * 512 >= said.st_size == 4 * FIRST_SIZE


def test_a_worker_that_begins_on_a_full_disk_counts_all_the_same(
    make, tmp_path, full, caplog
):
    orders, open_now = make("orders"), make("open", "gauge", "livesum")
    full(True)
    slot.take("0")
    orders.inc(2.0)
    open_now.inc(1.0)
    orders.of.settle()
    assert (orders.get(), open_now.get()) == (2.0, 1.0)
    assert caplog.text.count("metrics are not kept for now: No space left") == 1
    full(False)
    orders.of.settle()
    orders.inc(1.0)
    assert read(tmp_path / "counter_0.db") == {"orders": (3.0, 0.0)}
    assert read(tmp_path / "gauge_livesum_0.db") == {"open": (1.0, 0.0)}


def test_a_file_that_cannot_grow_keeps_what_it_has(make, tmp_path, full):
    first = make("first")
    full(True)
    late = [make(f"late_{number:0100d}") for number in range(800)]
    for each in (first, *late):
        each.inc(1.0)
    kept = read(tmp_path / "counter_master.db")
    assert kept["first"][0] == 1.0 and 100 < len(kept) < 800
    full(False)
    first.of.settle()
    kept = read(tmp_path / "counter_master.db")
    assert len(kept) == 801 and {count for count, _ in kept.values()} == {1.0}


def test_a_count_that_a_slot_had_goes_on_after_a_full_disk(make, tmp_path, full):
    orders = make("orders")
    slot.take("0")
    orders.inc(5.0)
    slot.take("1")
    (tmp_path / "counter_0.db").rename(tmp_path / "kept")
    full(True)
    slot.take("0")
    orders.inc(2.0)
    (tmp_path / "kept").rename(tmp_path / "counter_0.db")
    full(False)
    orders.of.settle()
    assert read(tmp_path / "counter_0.db") == {"orders": (7.0, 0.0)}
