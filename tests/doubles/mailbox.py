"""A real mail server (aiosmtpd) on a loopback port that the system chooses."""

from __future__ import annotations

from aiosmtpd.controller import Controller


class Server(Controller):
    """Serve a handler; `port` is known once it has started."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
