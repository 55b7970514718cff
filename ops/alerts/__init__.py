"""Tell people what happened to an environment.

`notice` says what and to whom (pure), `outbox` keeps it until a channel took it, and
each channel is one module with a function that sends. A new channel: copy `slack.py`,
add it to `outbox.CHANNELS`.
"""
