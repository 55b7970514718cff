"""What every answer carries, and which requests are turned away before any work."""

from __future__ import annotations

from collections.abc import Sequence

from dash.fingerprint import check_fingerprint
from flask import Flask, Response, abort, request
from werkzeug.middleware.proxy_fix import ProxyFix

from mltrading_health.client import same_origin

LARGEST_BODY = 64 * 1024
CALLBACKS = "/_dash-update-component"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Browsers no longer read it; scanners still ask for it.
    "X-XSS-Protection": "1; mode=block",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# A year. Other names below ours are not ours to speak for.
HTTPS_ONLY = "max-age=31536000"
# What changes nothing may come from anywhere: a link in a mail, another site.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def believe(server: Flask, proxies: int) -> None:
    """Let the nearest `proxies` say who asks and whether by https; none for 0."""
    if proxies:
        # Who asks is added to by each proxy. How they ask is written anew by each.
        server.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            server.wsgi_app, x_for=proxies, x_proto=1, x_host=0
        )


def protect(server: Flask, app, script_hashes: Sequence[str]) -> None:
    """Set the headers, bound the body and turn away what no page of ours sends.

    Forged requests: docs/decisions/0011-no-token-against-forged-requests.md.
    """
    server.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    policy = content_policy(script_hashes)

    @server.before_request
    def origin() -> None:
        if request.method not in SAFE and not same_origin(request.environ):
            abort(403, "only pages of this site may send this")

    @server.after_request
    def headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", policy)
        if request.is_secure:
            response.headers.setdefault("Strict-Transport-Security", HTTPS_ONLY)
        return response

    @server.before_request
    def callbacks() -> None:
        if request.path == CALLBACKS and request.method == "POST":
            reason = refusal(request.get_json(), app.callback_map)
            if reason:
                abort(400, reason)

    @server.before_request
    def suites() -> None:
        """Say 404 to what is no file of Dash, which raises for that.

        A 500 that anybody can ask for would call people in the night.
        """
        asked = request.view_args or {}
        if (name := asked.get("fingerprinted_path")) is not None:
            known = app.registered_paths.get(asked["package_name"], ())
            if check_fingerprint(name)[0] not in known:
                abort(404)


def content_policy(script_hashes: Sequence[str]) -> str:
    """Return the Content-Security-Policy: own files, and the named inline scripts."""
    scripts = " ".join(["'self'", *script_hashes])
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src {scripts}",
            # Dash and plotly.js write style elements; they run nothing.
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def refusal(body: object, callback_map: dict) -> str | None:
    """Return why a callback request is not one that the page sends, or None.

    Dash trusts the shape of the body; without this a made-up one ends as a 500.
    """
    if not isinstance(body, dict):
        return "the body is not an object"
    output = body.get("output")
    if not isinstance(output, str) or output not in callback_map:
        return "no such callback"
    callback = callback_map[output]
    for name, key in (("inputs", "inputs"), ("state", "state")):
        if _addresses(body.get(name, [])) != _addresses(callback[key]):
            return f"{name} are not those of the callback"
    if _joined(body.get("outputs")) != output:
        return "outputs are not those of the callback"
    changed = body.get("changedPropIds", [])
    if not isinstance(changed, list) or not all(isinstance(c, str) for c in changed):
        return "changedPropIds is not a list of names"
    return None


def _addresses(parts: object) -> list | None:
    if not isinstance(parts, list | tuple):
        return None
    found = [_address(part) for part in parts]
    return None if None in found else found


def _address(part: object) -> str | None:
    if not isinstance(part, dict):
        return None
    if not isinstance(part.get("id"), str) or not isinstance(part.get("property"), str):
        return None
    return f"{part['id']}.{part['property']}"


def _joined(outputs: object) -> str | None:
    """Return the outputs of a request as Dash names the callback."""
    if isinstance(outputs, dict):
        return _address(outputs)
    addresses = _addresses(outputs)
    return None if not addresses else f"..{'...'.join(addresses)}.."
