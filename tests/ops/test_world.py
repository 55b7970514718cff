"""What the environment serves where its hosts serve different releases."""

from __future__ import annotations

import pytest

from tests.ops import worlds


@pytest.mark.parametrize(
    ("serve", "traffic", "current", "drifted"),
    [
        ([], [1], None, []),
        ([None, None], [1], None, []),
        ([2, 2], [1], 2, []),
        ([1, 2, 1], [1, 2], 2, ["0", "2"]),
        ([None, 2], [2], 2, ["0"]),
        ([1, 2, 2], [9], 2, ["0"]),
        ([2, 1], [], 2, ["1"]),
    ],
)
def test_the_journal_speaks_where_hosts_differ(
    serve: list[int | None], traffic: list[int], current: int | None, drifted: list[str]
) -> None:
    hosts = [{"name": str(at), "current": n} for at, n in enumerate(serve)]
    world = worlds.world({"hosts": hosts, "traffic": traffic})
    assert world.current == current
    assert [host.name for host in world.drifted] == drifted
