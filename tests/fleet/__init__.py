"""Throw-away hosts with real systemd and real sshd, for tests."""
