"""The lease: one holder, freed by the kernel, never by deleting a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.errors import Locked
from ops.lease import Lease, describe


def take(folder: Path, wait: float = 0.0) -> Lease:
    lease = Lease(folder)
    lease.take("a deploy", "ann@laptop", wait=wait, tell=lambda text: None)
    return lease


def test_a_second_taker_is_told_who_holds_it(tmp_path: Path) -> None:
    take(tmp_path)
    with pytest.raises(Locked, match="ann@laptop is doing a deploy") as locked:
        take(tmp_path)
    assert locked.value.code == 3


def test_a_released_lease_can_be_taken(tmp_path: Path) -> None:
    take(tmp_path).release()
    assert Lease(tmp_path).held_by() is None
    take(tmp_path)


def test_each_taking_has_a_higher_epoch(tmp_path: Path) -> None:
    first = take(tmp_path)
    first.release()
    assert take(tmp_path).epoch == first.epoch + 1


def test_the_lock_file_is_the_same_file_for_ever(tmp_path: Path) -> None:
    lease = take(tmp_path)
    before = os.stat(lease.lock).st_ino
    lease.release()
    take(tmp_path)
    assert os.stat(lease.lock).st_ino == before


@pytest.mark.integration
def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.ops.test_lease import take;"
        "lease = take(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Locked):
        take(tmp_path)
    holder.kill()
    holder.communicate()
    take(tmp_path)


def test_a_step_that_inherits_the_lease_keeps_others_out(tmp_path: Path) -> None:
    lease = take(tmp_path)
    step = subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, pass_fds=(lease.descriptor,)
    )
    os.close(lease.descriptor)
    with pytest.raises(Locked):
        take(tmp_path)
    step.communicate()
    take(tmp_path)


def test_a_free_lease_is_described(tmp_path: Path) -> None:
    assert describe(Lease(tmp_path).held_by()) == "the lease is free"


def test_a_look_at_the_lease_does_not_keep_a_taker_out(tmp_path: Path) -> None:
    take(tmp_path).release()
    looking = Lease(tmp_path)
    for _ in range(50):
        looking.held_by()
        lease = take(tmp_path)
        assert looking.held_by()["by"] == "ann@laptop"
        lease.release()
