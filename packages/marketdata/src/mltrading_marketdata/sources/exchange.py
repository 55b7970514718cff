"""One name per exchange, whatever a provider calls it: one that has a calendar."""

from __future__ import annotations

# By what a provider's name begins with, in lower case and without spaces; the longer
# ones come first.
_NAMES = (
    ("nysearca", "ARCX"),
    ("nysemkt", "XASE"),
    ("nyseamerican", "XASE"),
    ("nyse", "NYSE"),
    ("nasdaq", "NASDAQ"),
    ("arca", "ARCX"),
    ("amex", "XASE"),
    ("bats", "BATS"),
    ("cboeus", "BATS"),
    ("otc", "OOTC"),
    ("pink", "OOTC"),
    ("xetra", "XETR"),
    ("frankfurt", "XFRA"),
    ("lse", "LSE"),
    ("paris", "XPAR"),
    ("amsterdam", "XAMS"),
    ("milan", "XMIL"),
    ("swiss", "XSWX"),
    ("tokyo", "XTKS"),
    ("hkse", "XHKG"),
    ("toronto", "XTSE"),
    ("asx", "XASX"),
    ("ccc", "24/7"),
)


def canonical(name: str) -> str:
    """Return the name under which the hours of an exchange are known, else `name`."""
    plain = "".join(name.lower().split())
    for begins, ours in _NAMES:
        if plain.startswith(begins):
            return ours
    return name
