"""Check that another service answers over HTTP."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

from mltrading_health.checks import Result, Status

_USER_AGENT = "mltrading-health"


def http_check(
    url: str,
    timeout: float = 1.0,
    *,
    method: str = "HEAD",
    statuses: Collection[int] = range(200, 300),
    redirects: bool = False,
    headers: Mapping[str, str] | None = None,
    slow: float | None = None,
    context: ssl.SSLContext | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[], Result]:
    """Return a check that asks a URL and looks at the status of the answer.

    ``timeout`` seconds for the connection and for each wait for the answer; give the
    check itself at least as much. A redirect is no yes, as a login page or a captive
    portal would be one; with ``redirects`` any 3xx is, and is not followed. An answer
    after ``slow`` seconds is a warning. Of the body nothing is read.

    The results name neither the host nor the URL. A credential goes into ``headers``.

    Raises:
        ValueError: not an http or https URL of a host, or one with a password; another
            method than HEAD and GET.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a dependency is an http or https URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user or password in the URL of a dependency, use headers")
    if method not in ("HEAD", "GET"):
        raise ValueError(f"method {method!r} is neither HEAD nor GET")
    host, port, tls = parts.hostname, parts.port, parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    wanted = {"User-Agent": _USER_AGENT, "Connection": "close", **(headers or {})}
    if tls and context is None:
        context = ssl.create_default_context()

    def check() -> Result:
        began = clock()
        if tls:
            door = http.client.HTTPSConnection(
                host, port, timeout=timeout, context=context
            )
        else:
            door = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            door.request(method, target, headers=wanted)
            status = door.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return Result(Status.FAIL, _said(error))
        finally:
            door.close()
        took = 1000 * (clock() - began)
        good = status in statuses or redirects and 300 <= status < 400
        late = slow is not None and took > 1000 * slow
        found = (Status.WARN if late else Status.PASS) if good else Status.FAIL
        return Result(found, f"HTTP {status} in {took:.0f} ms", round(took, 1), "ms")

    return check


def _said(error: Exception) -> str:
    """Return what went wrong without the host, which some errors name."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_code})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'unknown'}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
