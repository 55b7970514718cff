"""Values live in files, in prometheus-client's format, and move with the slot."""

import threading

import pytest
from prometheus_client.mmap_dict import MmapedDict

from mltrading_health import slot
from mltrading_health.values import stored


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
