"""How an environment is reached: one module per kind of target."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ops.environment import Environment
    from ops.targets.target import Target


def open_target(environment: Environment) -> Target:
    """Return the target that reaches an environment; nothing is connected yet.

    Raises:
        Usage: a variable that says where its hosts are is not set.
    """
    if environment.target == "ssh":
        from ops.targets.ssh import SshTarget

        return SshTarget(environment)
    from ops.targets.local import LocalTarget

    return LocalTarget(environment)
