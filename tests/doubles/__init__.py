"""Servers on loopback that speak the real protocol, and can be told to misbehave."""
