"""Send a notice to a Slack channel through an incoming webhook."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from ops.alerts.notice import Notice
from ops.command import Secret

_COLOURS = {"info": "#3b82f6", "good": "#16a34a", "bad": "#dc2626"}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def send(notice: Notice, webhook: Secret, timeout: float) -> str:
    """Post a notice; return "" when Slack took it, else why it did not."""
    problem = unfit(webhook)
    if problem:
        return problem
    request = urllib.request.Request(
        webhook.value,
        data=json.dumps(payload(notice)).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with _opener(webhook).open(request, timeout=timeout) as answer:
            said = answer.read(200).decode(errors="replace").strip()
            # Slack's own yes; a connection cut in the middle leaves none.
            took = answer.status == 200 and said == "ok"
            return "" if took else f"status {answer.status}: {said or 'no word'}"
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(200).decode(errors="replace").strip()
        return f"status {error.code}: {said or error.reason}"
    except urllib.error.URLError as error:
        # Its reason names the fault; the address is a secret and stays unsaid.
        return str(error.reason) or type(error.reason).__name__
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def unfit(webhook: Secret) -> str:
    """Return why an address can't be a webhook, without showing it; "" if it can."""
    try:
        parts = urlsplit(webhook.value)
        host = parts.hostname or ""
    except ValueError:
        return "the webhook is no address"
    if parts.scheme == "https" and host:
        return ""
    if parts.scheme == "http" and host in _LOOPBACK:
        return ""
    return "the webhook is no https address"


def payload(notice: Notice) -> dict[str, Any]:
    """Return what Slack's incoming webhooks read. Pure."""
    fields = [
        {"title": escaped(name), "value": escaped(value), "short": len(value) < 40}
        for name, value in notice.fields
    ]
    return {
        "channel": notice.channel,
        "username": "mltrading",
        "text": escaped(notice.title),
        "attachments": [
            {
                "fallback": escaped(notice.title),
                "color": _COLOURS[notice.tone],
                "text": escaped(notice.body),
                "fields": fields,
                "ts": int(notice.at),
            }
        ],
    }


def escaped(text: str) -> str:
    """Return text in which nothing calls a person or makes a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: the address is a secret, and a moved POST becomes a GET."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener(webhook: Secret) -> urllib.request.OpenerDirector:
    local = urlsplit(webhook.value).hostname in _LOOPBACK
    proxies = (
        urllib.request.ProxyHandler({}) if local else urllib.request.ProxyHandler()
    )
    return urllib.request.build_opener(proxies, _Stay())
