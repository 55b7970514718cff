"""What workers use is read from /proc, by slot."""

import os

from mltrading_health.workers import Workers, cpu_seconds


def process(root, pid, pss_kb=100, ticks=(150, 50), name="python3"):
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "smaps_rollup").write_text(f"Rss: 900 kB\nPss: {pss_kb} kB\n")
    fields = ["S", *["0"] * 10, *map(str, ticks), *["0"] * 30]
    (folder / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


def test_pids_are_read_from_the_files_of_the_slots(tmp_path):
    (tmp_path / "worker_0.pid").write_text("11\n")
    (tmp_path / "worker_1.pid").write_text("")
    assert Workers(tmp_path).pids() == {"0": 11}


def test_without_slots_there_is_this_process():
    assert Workers(None).pids() == {"0": os.getpid()}


def test_memory_and_processor_time_are_those_of_each_slot(tmp_path):
    for slot, pid in (("0", 11), ("1", 12)):
        (tmp_path / f"worker_{slot}.pid").write_text(f"{pid}\n")
        process(tmp_path, pid, pss_kb=pid)
    (tmp_path / "worker_2.pid").write_text("13\n")  # has just ended
    workers = Workers(tmp_path, root=tmp_path)
    assert workers.memory() == {"0": 11 * 1024, "1": 12 * 1024}
    second = 200 / os.sysconf("SC_CLK_TCK")
    assert workers.cpu() == {"0": second, "1": second}


def test_memory_is_not_read_again_at_each_scrape(tmp_path):
    times = iter([0.0, 14.0, 15.0])
    workers = Workers(tmp_path, root=tmp_path, clock=lambda: next(times))
    (tmp_path / "worker_0.pid").write_text("11\n")
    process(tmp_path, 11, pss_kb=1)
    rollup = tmp_path / "proc/11/smaps_rollup"
    assert workers.memory() == {"0": 1024}
    rollup.write_text("Pss: 2 kB\n")
    assert workers.memory() == {"0": 1024}
    assert workers.memory() == {"0": 2048}


def test_the_name_of_a_program_may_look_like_anything(tmp_path):
    process(tmp_path, 11, name="a) S (b 1 2")
    assert cpu_seconds(11, tmp_path) == 200 / os.sysconf("SC_CLK_TCK")
    assert cpu_seconds(12, tmp_path) is None


def test_the_memory_of_the_service_is_kept_for_5_seconds(tmp_path):
    times = iter([0.0, 4.0, 5.0])
    workers = Workers(None, root=tmp_path, clock=lambda: next(times))
    meminfo = tmp_path / "proc/meminfo"
    meminfo.parent.mkdir()
    shares = []
    for free in (6, 4, 2):
        meminfo.write_text(f"MemTotal: 8 kB\nMemAvailable: {free} kB\n")
        shares.append(workers.service().share)
    assert shares == [0.25, 0.25, 0.75]
