"""The delivery engine: proves, builds, ships, watches and un-ships the dashboard.

It imports no service and no package of the workspace: it works before they are
installed, and ships them as an artefact.
"""
