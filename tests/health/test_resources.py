"""Memory is measured against the enforced limit, disks by their free share."""

import pytest

from mltrading_health import Status, disk_check, memory_check
from mltrading_health.memory import MIB, memory, worker_memory


@pytest.fixture
def machine(tmp_path):
    """Write /proc and /sys files below a folder."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    write(
        proc__meminfo=f"MemTotal: {8192 * 1024} kB\nMemAvailable: {6144 * 1024} kB\n",
        proc__self__smaps_rollup="x\nRss: 999 kB\nPss: 102400 kB\n",
        proc__7__smaps_rollup=f"Pss: {600 * 1024} kB\n",
        proc__8__status="Name: x\nVmRSS: 2048 kB\n",
    )
    return write


V2 = "sys__fs__cgroup__"
V1 = "sys__fs__cgroup__memory__"


def test_without_a_limit_memory_is_the_hosts(machine):
    found = memory(machine())
    assert (found.used, found.limit) == (2048 * MIB, 8192 * MIB)


def test_the_limit_of_cgroup_2_counts_and_cached_files_do_not(machine):
    root = machine(
        proc__self__cgroup="0::/app\n",
        **{
            f"{V2}app__memory_dot_max": str(1024 * MIB),
            f"{V2}app__memory_dot_current": str(900 * MIB),
            f"{V2}app__memory_dot_stat": f"inactive_file {100 * MIB}\n",
        },
    )
    found = memory(root)
    assert (found.used, found.limit) == (800 * MIB, 1024 * MIB)


def test_the_tightest_limit_of_all_ancestors_counts(machine):
    root = machine(
        proc__self__cgroup="0::/a/b\n",
        **{
            f"{V2}a__b__memory_dot_max": "max",
            f"{V2}a__b__memory_dot_current": "1",
            f"{V2}a__memory_dot_max": str(100 * MIB),
            f"{V2}a__memory_dot_current": str(50 * MIB),
        },
    )
    assert memory(root).share == 0.5


def test_the_limit_of_cgroup_1_counts(machine):
    root = machine(
        proc__self__cgroup="5:cpu:/\n4:memory,x:/not/visible/in/here\n",
        **{
            f"{V1}memory_dot_limit_in_bytes": str(512 * MIB),
            f"{V1}memory_dot_usage_in_bytes": str(256 * MIB),
            f"{V1}memory_dot_stat": f"total_inactive_file {128 * MIB}\n",
        },
    )
    assert memory(root).share == 0.25


def test_an_absurd_limit_is_none(machine):
    root = machine(
        proc__self__cgroup="4:memory:/\n",
        **{
            f"{V1}memory_dot_limit_in_bytes": str(2**63 - 4096),
            f"{V1}memory_dot_usage_in_bytes": "1",
        },
    )
    assert memory(root).limit == 8192 * MIB


def told(machine, **files):
    """Return a machine without a cgroup's limit: our group 70 has workers 7 and 8."""
    return machine(
        proc__self__stat="7 (a) b) R 1 70 70 0\n",
        proc__7__stat="7 (a) b) R 1 70 70 0\n",
        proc__8__stat="8 (x) S 7 70 70 0\n",
        proc__9__stat="9 (y) S 1 9 9 0\n",
        proc__9__smaps_rollup="Pss: 99999999 kB\n",
        **files,
    )


@pytest.mark.parametrize(
    ("environ", "limit", "found"),
    [
        ({"DYNO_RAM": "1024"}, None, 1024 * MIB),
        ({"DYNO_RAM": "1024"}, 2048 * MIB, 1024 * MIB),
        ({}, 2048 * MIB, 2048 * MIB),
        ({"DYNO_RAM": "much"}, 2048 * MIB, 2048 * MIB),
    ],
)
def test_a_limit_that_is_only_told_counts_what_our_processes_have(
    machine, environ, limit, found
):
    seen = memory(told(machine), limit=limit, environ=environ)
    assert (seen.used, seen.limit) == (602 * MIB, found)


def test_a_limit_that_is_enforced_comes_before_those_that_are_told(machine):
    root = told(
        machine,
        proc__self__cgroup="0::/app\n",
        **{
            f"{V2}app__memory_dot_max": str(4096 * MIB),
            f"{V2}app__memory_dot_current": str(MIB),
        },
    )
    seen = memory(root, limit=512 * MIB, environ={"DYNO_RAM": "512"})
    assert (seen.used, seen.limit) == (MIB, 4096 * MIB)


def test_no_limit_is_more_than_the_host_has(machine):
    seen = memory(told(machine), environ={"DYNO_RAM": "16384"})
    assert seen.limit == 8192 * MIB


def test_the_check_takes_a_limit_that_is_told(machine):
    check = memory_check(root=told(machine), limit=640 * MIB, pid=lambda: 8)
    assert check().status is Status.FAIL


def test_a_container_of_cgroup_2_is_limited_at_the_root_of_its_view(machine):
    # In a cgroup namespace the path is "/", and memory.max stands beside it.
    root = machine(
        proc__self__cgroup="0::/\n",
        **{
            f"{V2}memory_dot_max": str(512 * MIB),
            f"{V2}memory_dot_current": str(300 * MIB),
            f"{V2}memory_dot_stat": (
                f"anon 1\nfile 2\ninactive_anon 7\ninactive_file {44 * MIB}\n"
            ),
        },
    )
    seen = memory(root, environ={})
    assert (seen.used, seen.limit) == (256 * MIB, 512 * MIB)


def test_a_group_that_is_gone_from_view_is_not_the_end(machine):
    # The path of the host is seen, but not its folders: only the base is there.
    root = machine(
        proc__self__cgroup="0::/kubepods/pod1/c2\n",
        **{
            f"{V2}memory_dot_max": "max\n",
            f"{V2}memory_dot_current": "1\n",
        },
    )
    assert memory(root, environ={}).limit == 8192 * MIB


def test_a_system_without_proc_has_no_answer(tmp_path):
    assert memory(tmp_path) is None
    assert worker_memory(1, tmp_path) is None
    result = memory_check(root=tmp_path)()
    assert result.status is Status.WARN and "cannot be read" in result.output


def test_a_workers_memory_is_its_proportional_share(machine):
    assert worker_memory(None, machine()) == 100 * MIB
    assert worker_memory(8, machine()) == 2 * MIB


@pytest.mark.parametrize(
    ("used", "status"),
    [(79, Status.PASS), (80, Status.WARN), (89, Status.WARN), (90, Status.FAIL)],
)
def test_memory_warns_at_80_and_fails_at_90_percent(machine, used, status):
    root = machine(
        proc__meminfo=f"MemTotal: 100 kB\nMemAvailable: {100 - used} kB\n",
    )
    result = memory_check(root=root, pid=lambda: 8)()
    assert (result.status, result.value) == (status, float(used))


def test_a_worker_beyond_its_limit_is_a_warning(machine):
    result = memory_check(root=machine(), pid=lambda: 7)()
    assert result.status is Status.WARN
    assert result.output == "25.0% of the limit, this worker 600 MiB"


@pytest.mark.parametrize(
    ("free", "status"),
    [(10, Status.PASS), (9, Status.WARN), (5, Status.WARN), (4, Status.FAIL)],
)
def test_a_disk_warns_below_10_and_fails_below_5_percent(free, status):
    check = disk_check("/data", usage=lambda path: (100, 100 - free, free))
    assert check().status is status


def test_a_disk_of_no_size_has_no_room():
    assert disk_check("/x", usage=lambda path: (0, 0, 0))().status is Status.FAIL


def test_a_real_disk_and_real_memory_have_an_answer(tmp_path):
    assert 0 <= disk_check(tmp_path)().value <= 100
    assert memory_check()().output


def test_of_several_disks_the_fullest_counts():
    rooms = {"a": (100, 50, 50), "b": (1000, 960, 40)}
    found = disk_check("a", "b", usage=rooms.__getitem__)()
    assert (found.status, found.value) == (Status.FAIL, 4.0)
    with pytest.raises(ValueError, match="needs a path"):
        disk_check()
