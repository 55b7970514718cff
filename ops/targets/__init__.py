"""How an environment is reached: one module per kind of target."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ops.environment import Environment
    from ops.targets.target import Target


def open_target(environment: Environment) -> Target:
    """Return the target that reaches an environment."""
    from ops.targets.local import LocalTarget

    return LocalTarget(environment)
