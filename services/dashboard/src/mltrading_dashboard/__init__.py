"""The trading dashboard."""

from importlib.metadata import version

__version__ = version("mltrading-dashboard")
