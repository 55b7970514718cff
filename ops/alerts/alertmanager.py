"""Who is told of which alert, and how: Alertmanager's configuration. Pure.

The environment picks the Slack channel, the severity the people who get mail.
"""

from __future__ import annotations

from typing import Any

from ops.alerts.prometheus import length
from ops.alerts.site import Site
from ops.alerts.thresholds import SEVERITIES, Alerts

#: Where an alert goes that names no environment we know: nothing is lost.
STRAY = "stray"
_GROUPED = ["alertname", "env", "service"]
# Of one thing: a critical alert about one disk does not silence another's warning.
_SAME = [*_GROUPED, "instance", "disk", "worker", "check", "slo"]
_COLOURS = {"critical": "#dc2626", "warning": "#d97706"}
_RESOLVED = "#16a34a"
_ENDED = '{{ if eq .Status "resolved" }}resolved: {{ end }}'
_TEST = "{{ if .CommonLabels.test }}TEST, nothing is wrong: {{ end }}"
_LINES = (
    "{{ range .Alerts }}{{ .Annotations.summary }}"
    "{{ if .Annotations.value }} (now {{ .Annotations.value }}){{ end }}"
    "{{ if .Labels.instance }} at {{ .Labels.instance }}{{ end }}"
    "{{ if .Labels.disk }}, disk {{ .Labels.disk }}{{ end }}"
    "{{ if .Labels.worker }}, worker {{ .Labels.worker }}{{ end }}"
    "{{ if .Labels.check }}, check {{ .Labels.check }}{{ end }}"
    "{{ if .Labels.slo }}, {{ .Labels.slo }} over {{ .Labels.burn }}{{ end }}"
    "\ndo: {{ .Annotations.do }}\nread: {{ .Annotations.runbook }}\n{{ end }}"
)


def configuration(alerts: Alerts, site: Site) -> dict[str, Any]:
    """Return what Alertmanager is started with."""
    document: dict[str, Any] = {
        "global": _global(site),
        "route": _route(alerts, site),
        "inhibit_rules": _inhibitions(),
        "receivers": [
            _receiver(STRAY, alerts, site, "", "warning"),
            *(
                _receiver(f"{name}-{word}", alerts, site, name, word)
                for name in site.environments
                for word in SEVERITIES
            ),
        ],
    }
    return document


def _global(site: Site) -> dict[str, Any]:
    if site.mail is None:
        return {"resolve_timeout": "5m"}
    said = {
        "resolve_timeout": "5m",
        "smtp_from": site.sender,
        "smtp_smarthost": site.mail.smarthost,
        "smtp_require_tls": site.mail.encrypt,
    }
    if site.mail.user:
        said["smtp_auth_username"] = site.mail.user
        said["smtp_auth_password_file"] = site.mail.password_file
    return said


def _route(alerts: Alerts, site: Site) -> dict[str, Any]:
    paces = alerts.paces
    return {
        "receiver": STRAY,
        "group_by": _GROUPED,
        "group_wait": length(paces["warning"].group_wait),
        "group_interval": length(alerts.rhythm.group_interval),
        "repeat_interval": length(paces["warning"].repeat),
        "routes": [
            {
                "receiver": f"{name}-{word}",
                "matchers": [f'env="{name}"', f'severity="{word}"'],
                "group_wait": length(paces[word].group_wait),
                "repeat_interval": length(paces[word].repeat),
            }
            for name in site.environments
            for word in SEVERITIES
        ],
    }


def _inhibitions() -> list[dict[str, Any]]:
    """Return which alerts keep which others silent while they fire."""
    down = 'alertname="TargetDown"'
    # A test of the channels is to arrive all the same.
    others = ['alertname!="TargetDown"', 'test!="true"']
    return [
        {
            "source_matchers": ['severity="critical"'],
            "target_matchers": ['severity="warning"'],
            "equal": _SAME,
        },
        # Nobody answers: all else that is said of the service is a consequence.
        {
            "source_matchers": [down, 'severity="critical"'],
            "target_matchers": others,
            "equal": ["env", "service"],
        },
        {
            "source_matchers": [down, 'severity="critical"'],
            "target_matchers": [down, 'severity="warning"'],
            "equal": ["env", "service"],
        },
        # One of several hosts is gone: what is said of that host is old.
        {
            "source_matchers": [down, 'severity="warning"'],
            "target_matchers": others,
            "equal": ["env", "service", "instance"],
        },
    ]


def _receiver(
    name: str, alerts: Alerts, site: Site, environment: str, severity: str
) -> dict[str, Any]:
    said: dict[str, Any] = {"name": name}
    if site.webhooks.get(environment):
        said["slack_configs"] = [_slack(alerts, site, environment, severity)]
    people = site.people[severity]
    if site.mail is not None and people:
        said["email_configs"] = [
            _mail(people, _title(alerts, environment, severity), severity)
        ]
    return said


def _title(alerts: Alerts, environment: str, severity: str) -> str:
    audience = alerts.audiences.get(environment)
    title = audience.title if audience else "{{ .CommonLabels.env }}"
    return f"{_TEST}{_ENDED}{title}: {severity}: {{{{ .GroupLabels.alertname }}}}"


def _slack(
    alerts: Alerts, site: Site, environment: str, severity: str
) -> dict[str, Any]:
    audience = alerts.audiences[environment]
    title = _title(alerts, environment, severity)
    fields = [
        {"title": "severity", "value": severity, "short": True},
        {"title": "since", "value": _since(), "short": True},
    ]
    if audience.urgent and severity == "critical":
        fields.append({"title": "urgency", "value": "high", "short": True})
    return {
        "api_url_file": site.webhooks[environment],
        "channel": audience.channel,
        "username": "mltrading",
        "send_resolved": True,
        "color": f'{{{{ if eq .Status "resolved" }}}}{_RESOLVED}'
        f"{{{{ else }}}}{_COLOURS[severity]}{{{{ end }}}}",
        "title": title,
        "title_link": "",
        "fallback": title,
        "text": _LINES,
        "fields": fields,
    }


def _since() -> str:
    return '{{ (index .Alerts 0).StartsAt.Format "2006-01-02 15:04:05 MST" }}'


def _mail(people: tuple[str, ...], title: str, severity: str) -> dict[str, Any]:
    headers = {"Subject": title}
    if severity == "critical":
        headers |= {"X-Priority": "1", "Importance": "high"}
    return {
        "to": ", ".join(people),
        "send_resolved": True,
        "headers": headers,
        "html": "",
        "text": _LINES,
    }
