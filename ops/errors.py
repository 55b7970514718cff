"""Every way a task can end, and the exit code that says so.

0 ok · 1 failed, the old version serves · 2 usage · 3 locked · 4 gate failed and
reverted · 5 revert failed · 130 interrupted. The codes are a contract: scripts and
the workflow read them.
"""

from __future__ import annotations

import re

# Tasks that act on `local` where no environment is named.
_AIMED = (
    *("config", "db-reset", "deploy", "doctor", "down", "exec", "history", "ingest"),
    *("logs", "monitor", "prune", "psql", "report", "restart", "rollback", "shell"),
    *("status", "unlock", "up"),
)
_COMMAND = re.compile(rf"\binv ({'|'.join(_AIMED)})\b(?!-)(?![^;]* --env )")


class OpsError(Exception):
    """Say what went wrong, where, what is allowed, and what to type next."""

    code = 1
    word = "error"

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        allowed: str = "",
        next: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.allowed = allowed
        self.next = next
        self.detail = detail

    def as_json(self) -> dict[str, object]:
        """Return the error as a mapping of strings, with its kind and exit code."""
        fields = {
            "what": self.what,
            "where": self.where,
            "allowed": self.allowed,
            "next": self.next,
            "detail": self.detail,
        }
        said = {key: value for key, value in fields.items() if value}
        return {"kind": type(self).__name__, "code": self.code, **said}


class Usage(OpsError):
    """What was typed or configured is not allowed; nothing was touched."""

    code = 2
    word = "usage"


class Refused(OpsError):
    """The world does not allow it now; nothing was touched."""

    code = 1
    word = "refused"


class StepFailed(OpsError):
    """A step failed before traffic moved; the old version serves."""

    code = 1
    word = "failed"


class Locked(OpsError):
    """Somebody else may act now."""

    code = 3
    word = "locked"


class GateFailed(OpsError):
    """A gate said no and everything it had moved was put back."""

    code = 4
    word = "gate failed, reverted"


class RevertFailed(OpsError):
    """A gate said no and putting things back failed too: a person is needed."""

    code = 5
    word = "REVERT FAILED"


class Interrupted(OpsError):
    """Ctrl-C or a termination signal; what was begun was undone or finished."""

    code = 130
    word = "interrupted"


def aimed(text: str, environment: str) -> str:
    """Return what to type next so that it is about this environment, not `local`.

    Whoever knows that a step failed on a host need not know of which environment.
    """
    if environment == "local":
        return text
    return _COMMAND.sub(rf"inv \1 --env {environment}", text)


def port_taken(port: int, holder: str) -> Refused:
    """Return the refusal for a front door whose port somebody else holds."""
    return Refused(
        f"port {port} is taken by {holder}",
        where=f"127.0.0.1:{port}",
        allowed="a free port",
        next="add --port 0 for a free port, or end that program",
    )
