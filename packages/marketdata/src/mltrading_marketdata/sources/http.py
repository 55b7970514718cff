"""Ask a provider for JSON: the only place of this package that opens a URL itself.

A key travels in a header and nowhere else: not in the address, which others log, and
not in an error. A redirect is refused, since it would carry the key to anybody.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..errors import SourceClosed, SourceDown, SourceError
from .patience import Patience, retry_after

ANSWER_S = 20.0
LARGEST = 256 * 2**20
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_AGENT = "mltrading-marketdata"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Client:
    """One provider: where it is, and the header that says who asks."""

    def __init__(
        self,
        who: str,
        base: str,
        *,
        headers: Mapping[str, str],
        key: str,
        patience: Callable[[], Patience],
        answer_s: float = ANSWER_S,
    ) -> None:
        parts = urlsplit(base)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise SourceError(f"{who}: {base} is not https, which would show the key")
        self.who = who
        self._base = base.rstrip("/")
        self._headers = {"Accept": "application/json", "User-Agent": _AGENT, **headers}
        self._key = key
        self._patience = patience
        self._answer_s = answer_s
        self._opener = urllib.request.build_opener(_NoRedirect)

    def json(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return what an answer holds; asks again while that can help.

        Raises SourceError (refused as such, or not found), SourceDown (no answer came
        in time), SourceClosed (its limit is reached, or the key is refused).
        """
        url = f"{self._base}{path}" + (f"?{urlencode(query)}" if query else "")
        patience = self._patience()
        while True:
            pause: float | None = None
            try:
                return self._once(url, patience)
            except _Limit as limit:
                pause = limit.pause
                problem: SourceError = SourceClosed(
                    f"{self.who} asks to wait: {limit}",
                    "run the same command later: it goes on where it stopped",
                )
            except _Flaky as error:
                problem = SourceDown(
                    f"{self.who} gave no answer: {error}",
                    "run the same command later: it goes on where it stopped",
                )
            if not patience.again(pause):
                raise problem from None

    def _once(self, url: str, patience: Patience) -> Any:
        request = urllib.request.Request(url, headers=self._headers)  # nosec B310
        try:
            with self._opener.open(request, timeout=self._answer_s) as answer:
                body = self._body(answer, patience)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, self._said(error)) from None
        except urllib.error.URLError as error:
            raise _Flaky(self._hidden(str(error.reason))) from None
        except (OSError, http.client.HTTPException) as error:
            said = str(error) or type(error).__name__
            raise _Flaky(self._hidden(said)) from None
        try:
            return json.loads(body)
        except ValueError:
            text = self._hidden(_first(body))
            if over_limit(text):
                raise _Limit(text) from None
            raise _Flaky(f"it is not JSON: {text}") from None

    def _body(self, answer: http.client.HTTPResponse, patience: Patience) -> bytes:
        """Read an answer piece by piece, so that one that trickles has an end too."""
        parts, size = [], 0
        while part := answer.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                raise _Flaky(f"its answer is larger than {LARGEST >> 20} MiB")
            if not patience.left_s:
                raise _Flaky("its answer took too long")
        if answer.length:
            raise _Flaky(f"its answer was cut, {answer.length} bytes are missing")
        return b"".join(parts)

    def _refusal(self, error: urllib.error.HTTPError, said: str) -> Exception:
        what = f"HTTP {error.code}{': ' if said else ''}{said}"
        if error.code == 429 or over_limit(said):
            return _Limit(what, retry_after(error.headers.get("Retry-After")))
        if error.code in (401, 403):
            return SourceClosed(f"{self.who} refuses the key: {what}")
        if error.code >= 500 or error.code == 408:
            return _Flaky(what)
        return SourceError(f"{self.who}: {what}")

    def _said(self, error: urllib.error.HTTPError) -> str:
        """Return the first words of a refusal's body."""
        try:
            body = error.read(2000)
        except (OSError, http.client.HTTPException):
            return ""
        try:
            found = json.loads(body)
        except ValueError:
            return self._hidden(_first(body))
        detail = found.get("detail", found) if isinstance(found, dict) else found
        return self._hidden(str(detail)[:200])

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Limit(Exception):
    def __init__(self, what: str, pause: float | None = None) -> None:
        super().__init__(what)
        self.pause = pause


class _Flaky(Exception):
    """Something that may be different in a moment."""


def over_limit(text: str) -> bool:
    """Say whether words, that came with status 200 perhaps, mean "too often"."""
    lowered = text.lower()
    return "run over your" in lowered or "too many requests" in lowered


def _first(body: bytes) -> str:
    text = " ".join(body[:2000].decode(errors="replace").split())
    return text[:120] or "nothing"
