"""The service's own files, addressed by their content so that they can be kept."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from flask import Flask, Response, abort, request

FOLDER = Path(__file__).parent / "assets"
YEAR = 365 * 24 * 3600
STYLE = "app.css"
SCRIPT = "app.js"
RENDERER = "renderer.js"
PLOTLY = "vendor/plotly-finance-4.1.0.min.js"
FONT = "vendor/inter-5.3.0-latin.woff2"
ICON = "icon.svg"
# Tells the service how long a page took; it comes with the metrics that it feeds.
TIMINGS = "timings.js"
ELSEWHERE = {TIMINGS: "mltrading_health"}


@cache
def url(name: str) -> str:
    """Return the address of an asset; it changes when the content does."""
    digest = hashlib.sha256(_content(name)).hexdigest()
    return f"/assets/{name}?v={digest[:12]}"


@cache
def names() -> frozenset[str]:
    """Return the names of all assets; nothing else below the folder is given out."""
    ours = (path for path in FOLDER.rglob("*") if path.is_file())
    return frozenset(ELSEWHERE).union(
        path.relative_to(FOLDER).as_posix() for path in ours if path.suffix != ".br"
    )


def _content(name: str) -> bytes:
    package = ELSEWHERE.get(name)
    if package:
        return (files(package) / "static" / name).read_bytes()
    return (FOLDER / name).read_bytes()


def serve(server: Flask) -> None:
    """Answer /assets/…: a year in the cache under the current address, else not."""

    @server.get("/assets/<path:name>", endpoint="asset")
    def asset(name: str) -> Response:
        if name not in names():
            abort(404)
        response = _file(name)
        # A file with its version in the name may be named without the hash: the
        # style sheet asks for the font that way.
        versioned = re.search(r"-\d+\.\d+\.\d+[-.]", name) is not None
        if versioned or request.full_path == url(name):
            response.cache_control.max_age = YEAR
            response.cache_control.immutable = True
            response.cache_control.public = True
        response.add_etag()
        return response.make_conditional(request)


def _file(name: str) -> Response:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    packed = FOLDER / f"{name}.br"
    if not packed.is_file() or "br" not in request.accept_encodings:
        return Response(_content(name), mimetype=kind)
    response = Response(packed.read_bytes(), mimetype=kind)
    response.headers["Content-Encoding"] = "br"
    response.headers["Vary"] = "Accept-Encoding"
    return response
