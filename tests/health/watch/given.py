"""Rules of each kind, and histories to ask them of."""

from mltrading_health.watch.series import History

ERRORS = {
    "alert": "HighErrorRate",
    "severity": "critical",
    "kind": "ratio",
    "part": {
        "metric": "http_requests_total",
        "match": {"status": "5xx"},
        "unless": {"route": "<unknown callback>"},
    },
    "whole": {
        "metric": "http_requests_total",
        "unless": {"route": "<unknown callback>"},
    },
    "window_s": 120,
    "min_per_s": 0.1,
    "op": ">",
    "threshold": 0.05,
    "for_s": 30,
    "unit": "share",
    "summary": "more than 5 % of the requests fail",
    "hint": "inv logs --env {env}",
    "runbook": "docs/how-to/alerts.md#higherrorrate",
}
MILD = {**ERRORS, "severity": "warning", "threshold": 0.01, "for_s": 60}
SLOW = {
    "alert": "SlowResponses",
    "severity": "critical",
    "kind": "slow",
    "metric": "http_request_duration_seconds",
    "match": {"route": "chart *"},
    "unless": {},
    "le": 10,
    "window_s": 120,
    "min_per_s": 0.1,
    "op": ">",
    "threshold": 0.05,
    "for_s": 30,
    "unit": "share",
    "summary": "slow",
}
MEAN = {
    "alert": "DatabaseSlow",
    "severity": "warning",
    "kind": "mean",
    "metric": "database_query_duration_seconds",
    "window_s": 300,
    "min_per_s": 0.1,
    "op": ">",
    "threshold": 0.5,
    "for_s": 60,
    "unit": "seconds",
    "summary": "slow questions",
}
DISK = {
    "alert": "LowDisk",
    "severity": "critical",
    "kind": "level",
    "metric": "disk_free_bytes",
    "over": "disk_size_bytes",
    "op": "<",
    "threshold": 0.05,
    "for_s": 30,
    "unit": "share",
    "summary": "a disk is full",
}
DOCUMENT = {
    "format": 1,
    "interval_s": 15,
    "repeat_s": {"critical": 14_400, "warning": 14_400},
    "thresholds": {"memory": {"warning": 0.8, "critical": 0.9}, "worker_bytes": 1},
    "environments": {
        "prod": {
            "title": "production",
            "channel": "#production-alerts",
            "urgent": True,
            "suffix": "PRODUCTION",
            "mail": {
                "critical": {
                    "MAIL_TO_ONCALL": ["oncall@example.org"],
                    "MAIL_TO_DEVOPS": ["devops@example.org"],
                },
                "warning": {"MAIL_TO_TEAM": ["team@example.org"]},
                "sender": "alerts@example.org",
            },
        },
        "local": {},
    },
    "rules": [
        ERRORS,
        MILD,
        SLOW,
        MEAN,
        DISK,
        {"alert": "TargetDown", "severity": "critical", "kind": "down", "for": 3}
        | {"only": "prometheus"},
    ],
}


def labels(**texts):
    return frozenset(texts.items())


class Told:
    """A history of one service, fed snapshot by snapshot, every 15 seconds."""

    def __init__(self, *every):
        self.history, self.now, self.interval = History(every), -15.0, 15.0

    def snapshot(self, samples):
        self.now += self.interval
        self.history.add(self.now, samples)
        return self

    def requests(self, good, bad, **more):
        """Take in the counts that there are by now."""
        statuses = {"2xx": good, "5xx": bad}
        series = {
            labels(status=status, **more): count for status, count in statuses.items()
        }
        return self.snapshot({"http_requests_total": series})
