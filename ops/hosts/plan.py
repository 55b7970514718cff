"""What a host must have to take releases, and what is to be done where it has not.

Pure: a Wish and the Facts of one host go in, the steps come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ops.errors import Refused

PYTHON = (3, 11)
WEB_USER = "www-data"
# Other local users stop at the home; the web server may pass through, not look around.
GATE, PASSABLE = 0o710, 0o711
DOORS = ("nginx", "none")
ROLES = ("app", "balancer", "database")
_PACKAGES = {
    # Its client backs the database up before a migration.
    "none": ("python3", "libpam-systemd", "postgresql-client"),
    "nginx": ("python3", "libpam-systemd", "postgresql-client", "nginx"),
    "balancer": ("python3", "haproxy"),
    "database": ("python3", "postgresql"),
}
_SHELLS_OF_NOBODY = ("nologin", "false")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    `key` is a public key, "type base64 comment"; `root` the environment's folder,
    below the home of `user`. `balancers` are believed when they say who asks;
    `servers` are (name, address:port) of the hosts behind a balancer. A database
    listens on `listen`, lets `clients` (networks) in to the database and role
    `account`, whose password `verifier` proves.
    """

    env: str
    key: str
    root: str
    door: str = "nginx"
    port: int = 80
    user: str = "deploy"
    role: str = "app"
    balancers: tuple[str, ...] = ()
    servers: tuple[tuple[str, str], ...] = ()
    listen: str = ""
    clients: tuple[str, ...] = ()
    account: str = ""
    verifier: str = field(default="", repr=False)

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages that the host needs."""
        return _PACKAGES[self.door if self.role == "app" else self.role]

    @property
    def site(self) -> str:
        """The file name of nginx's site."""
        return f"mltrading-{self.env}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen on a host; the defaults are those of a bare one.

    `missing` packages; `folders`: path to (owner, group, mode); `others`: sites that
    want our port; `holder`: a program that is not nginx and has it; `stale`: nginx
    still works by an older site; `config` and `unit` are a balancer's files. Of a
    database: the addresses it listens on, its port, whether it speaks TLS, its rules of
    access and where they are, its configuration file, and whether role and database are
    there.
    """

    missing: tuple[str, ...] = ()
    python: tuple[int, ...] = ()
    system: str = ""
    systemd: bool = True
    uid: int | None = None
    group: str = ""
    home: str = ""
    shell: str = ""
    key: bool = False
    linger: bool = False
    folders: Mapping[str, tuple[str, str, int]] = field(default_factory=dict)
    site: str | None = None
    linked: bool = False
    default: bool = False
    others: tuple[str, ...] = ()
    holder: str = ""
    ipv6: bool = False
    enabled: bool = False
    active: bool = False
    stale: bool = False
    config: str | None = None
    unit: str | None = None
    listens: str = ""
    served: int = 0
    tls: bool = False
    rules: str | None = None
    rules_path: str = ""
    cluster: str = ""
    account: bool = False
    database: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: a program to run as root, or a verb of `on_host`.

    A program reads `text`, which nobody is shown. `check` is a program that must be
    content with what the verb has done; else the verb `undo` gets what it has returned.
    """

    name: str
    said: str
    argv: tuple[str, ...] = ()
    verb: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    check: tuple[str, ...] = ()
    undo: str = ""
    text: str = field(default="", repr=False)


def steps(wish: Wish, facts: Facts, host: str = "") -> tuple[Step, ...]:
    """Return what is to be done, in order; nothing where all is as wished.

    Without Python on the host the facts are those of a bare one, so the steps after
    the packages are a forecast: look again when the packages are there.

    Raises:
        Refused: the host can't be what is wished, or something is in the way.
    """
    refuse(wish, facts, host)
    return (
        *packages(wish, facts),
        *user(wish, facts),
        *_folders(wish, facts),
        *(_nginx(wish, facts) if wish.door == "nginx" else ()),
    )


def refuse(wish: Wish, facts: Facts, host: str = "") -> None:
    """Raise Refused where the host can't be what is wished."""
    if facts.python and facts.python < PYTHON:
        raise Refused(
            f"the host has Python {'.'.join(map(str, facts.python))}",
            where=host,
            allowed="Python 3.11 or newer, which Debian has since 12",
            next="upgrade the host's system",
        )
    if facts.python and not {"debian", "ubuntu"} & set(facts.system.split()):
        raise Refused(
            f"the host runs {facts.system or 'a system without a name'}",
            where=f"{host}, /etc/os-release",
            allowed="Debian 12 or newer, or a system made from it",
            next="prepare it by hand, by docs/how-to/prepare-hosts.md",
        )
    if not facts.systemd:
        raise Refused(
            "the host is not run by systemd",
            where=host,
            allowed="releases are units of systemd",
            next="use a host whose PID 1 is systemd",
        )
    if wish.role != "app":
        return
    if wish.door == "nginx" and facts.holder:
        raise Refused(
            f"port {wish.port} is taken by {facts.holder}",
            where=host,
            allowed="a port that is free, or nginx's",
            next="add --port NUMBER, or end that program",
        )
    if wish.door == "nginx" and facts.others:
        raise Refused(
            f"another site listens on port {wish.port}: {', '.join(facts.others)}",
            where=f"{host}, /etc/nginx/sites-enabled",
            allowed="a port for each environment of a host",
            next="add --port NUMBER, or remove that site",
        )


def home(wish: Wish, facts: Facts) -> str:
    """Return the home of the user that releases run as."""
    return facts.home or f"/home/{wish.user}"


def wanted_folders(wish: Wish, facts: Facts) -> dict[str, tuple[str, str, int]]:
    """Return path -> (owner, group, mode), outermost first."""
    group = facts.group or wish.user
    path = home(wish, facts)
    rows = {path: (wish.user, WEB_USER if wish.door == "nginx" else group, GATE)}
    for part in wish.root.split("/"):
        path = f"{path}/{part}"
        rows[path] = (wish.user, group, PASSABLE)
    return rows


def site(wish: Wish, facts: Facts) -> str:
    """Return nginx's site: static, dialling whatever release `current` names."""
    root = f"{home(wish, facts)}/{wish.root}"
    sock = f"{root}/current/app.sock"
    ipv6 = f"\n    listen [::]:{wish.port} default_server;" if facts.ipv6 else ""
    return f"""\
# Written by inv host-setup --env {wish.env}, which also undoes changes made here.
log_format {wish.site.replace("-", "_")}
    '$time_iso8601 $status $request_time $upstream_http_x_release '
    '$request_method $asked $remote_addr';
server {{
    listen {wish.port} default_server;{ipv6}
    server_name _;
    server_tokens off;

    # Which release answered, and no query string: what people type is theirs.
    set $asked -;
    if ($request_uri ~ "^([^?]*)") {{
        set $asked $1;
    }}
    access_log /var/log/nginx/{wish.site}.access.log {wish.site.replace("-", "_")};
    error_log /var/log/nginx/{wish.site}.error.log;

    client_header_timeout 15s;
    client_body_timeout 15s;
    client_max_body_size 1m;
    send_timeout 30s;
    keepalive_timeout 65s;

    proxy_http_version 1.1;
    # A kept connection would stay with the old release.
    proxy_set_header Connection close;
    proxy_set_header Host $http_host;
    proxy_set_header X-Real-IP $remote_addr;
{_believed(wish)}\
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-MLTrading-Pass "";
    # Never a second try: a POST may have been carried out.
    proxy_next_upstream off;
    proxy_connect_timeout 3s;
    proxy_send_timeout 30s;
    proxy_read_timeout 60s;

    # Maintenance is a file too. Whoever sends the pass, 32 hexadecimal digits that are
    # the name of a file nobody else may list, is let through: our own questions.
    set $shut "";
    set $pass none;
    if (-f {root}/closed/on) {{
        set $shut on;
    }}
    if ($http_x_mltrading_pass ~ "^([0-9a-f]{{32}})$") {{
        set $pass $1;
    }}
    if (-f {root}/closed/pass-$pass) {{
        set $shut "";
    }}

    location / {{
        if ($shut) {{
            return 503;
        }}
        # One socket, found through one link at every connection: a switch of
        # releases is a rename, and needs no reload of this.
        proxy_pass http://unix:{sock};
        error_page 502 =503 @away;
        error_page 503 /-/closed;
    }}

    location ~ ^/(livez|readyz|startupz|health|version|metrics|metrics[.]json)$ {{
        access_log off;
        proxy_pass http://unix:{sock};
        error_page 502 =503 @away;
    }}

    location = /-/closed {{
        internal;
        alias {root}/closed/page.html;
        default_type "text/html; charset=utf-8";
        types {{ }}
        add_header X-Maintenance on always;
        add_header Retry-After 60 always;
        add_header Cache-Control no-store always;
        add_header X-Content-Type-Options nosniff always;
        add_header X-Frame-Options DENY always;
        if_modified_since off;
        etag off;
        max_ranges 0;
    }}

    location @away {{
        internal;
        default_type text/plain;
        add_header Retry-After 5 always;
        add_header Cache-Control no-store always;
        return 503 "No release serves at the moment.\\n";
    }}
}}
"""


def _believed(wish: Wish) -> str:
    """Return whom nginx believes about who asks."""
    if not wish.balancers:
        return """\
    # Not added to what the client sent: there is no other proxy to believe.
"""
    lines = "".join(f"    set_real_ip_from {name};\n" for name in wish.balancers)
    return f"""\
    # Who asks is what our balancers say, and nobody else.
{lines}    real_ip_header X-Forwarded-For;
"""


def table(wish: Wish, facts: Facts) -> list[tuple[str, str, str]]:
    """Return (part, what is there, what will be) for people to read."""
    todo = {step.name: step.said for step in steps(wish, facts)}
    there = {
        "packages": present(wish, facts),
        "user": f"{wish.user}, uid {facts.uid}" if facts.uid is not None else "none",
        "key": "may log in" if facts.key else "may not log in",
        "linger": "on" if facts.linger else "off",
        "folders": _modes(wish, facts),
    }
    if wish.door == "nginx":
        there["site"] = _site_said(wish, facts)
        there["nginx"] = runs(facts)
    return [(part, said, todo.get(part, "stays")) for part, said in there.items()]


def firewall(wish: Wish) -> str:
    """Return the hint for whoever has a firewall; nothing here touches one."""
    if wish.door == "none":
        return "a firewall: let SSH in (ufw allow OpenSSH)"
    return (
        f"a firewall: let SSH and port {wish.port} in "
        f"(ufw allow OpenSSH; ufw allow {wish.port}/tcp)"
    )


def packages(wish: Wish, facts: Facts) -> tuple[Step, ...]:
    """Return the step that installs what is missing."""
    if not facts.missing:
        return ()
    return (Step("packages", f"install {_list(facts.missing)}"),)


def user(wish: Wish, facts: Facts, *, linger: bool = True) -> tuple[Step, ...]:
    """Return the steps that make the user, who may log in with the key."""
    todo = []
    if facts.uid is None:
        add = ("useradd", "--create-home", "--user-group", "--shell", "/bin/bash")
        said = f"make {wish.user}: no password, no rights"
        todo.append(Step("user", said, (*add, wish.user)))
    elif facts.shell.rpartition("/")[2] in _SHELLS_OF_NOBODY:
        change = ("usermod", "--shell", "/bin/bash", wish.user)
        todo.append(Step("user", f"let {wish.user} run /bin/bash", change))
    if not facts.key:
        kind, _, *rest = wish.key.split(maxsplit=2)
        said = f"let {rest[0] if rest else 'a key without a comment'} ({kind}) log in"
        arguments = {"user": wish.user, "key": wish.key}
        todo.append(Step("key", said, verb="authorize", arguments=arguments))
    if linger and not facts.linger:
        said = f"units of {wish.user} start with the host"
        todo.append(Step("linger", said, ("loginctl", "enable-linger", wish.user)))
    return tuple(todo)


def _folders(wish: Wish, facts: Facts) -> tuple[Step, ...]:
    wanted = wanted_folders(wish, facts)
    wrong = {
        path: row for path, row in wanted.items() if facts.folders.get(path) != row
    }
    if not wrong:
        return ()
    said = ", ".join(
        f"{path} {owner}:{group} {mode:o}"
        for path, (owner, group, mode) in wrong.items()
    )
    rows = [[path, *row] for path, row in wanted.items()]
    return (Step("folders", said, verb="folders", arguments={"folders": rows}),)


def _nginx(wish: Wish, facts: Facts) -> tuple[Step, ...]:
    todo = []
    text = site(wish, facts)
    changed = facts.site != text or not facts.linked or facts.default
    if changed:
        said = f"port {wish.port} to current/app.sock of {wish.env}"
        said += ", the default site out" if facts.default else ""
        arguments = {"name": wish.site, "text": text}
        check = ("nginx", "-t", "-q")
        todo.append(
            Step(
                "site",
                said,
                verb="site",
                arguments=arguments,
                check=check,
                undo="restore",
            )
        )
    if not (facts.enabled and facts.active):
        start = ("systemctl", "enable", "--now", "nginx.service")
        todo.append(Step("nginx", "start it, now and with the host", start))
    if facts.active and (changed or facts.stale):
        reload = ("systemctl", "reload", "nginx.service")
        todo.append(Step("nginx", "work by the new site", reload))
    return tuple(todo)


def present(wish: Wish, facts: Facts) -> str:
    """Return the packages that are there, for people to read."""
    return _list(set(wish.packages) - set(facts.missing)) or "none"


def runs(facts: Facts) -> str:
    """Return how a service is, for people to read."""
    return (
        f"{'running' if facts.active else 'stopped'}, "
        f"{'starts' if facts.enabled else 'does not start'} with the host"
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _modes(wish: Wish, facts: Facts) -> str:
    last = list(wanted_folders(wish, facts))[-1]
    if last not in facts.folders:
        return f"no {last}"
    owner, group, mode = facts.folders[last]
    return f"{last} {owner}:{group} {mode:o}"


def _site_said(wish: Wish, facts: Facts) -> str:
    if facts.site is None:
        return "none"
    said = "as wished" if facts.site == site(wish, facts) else "another text"
    return said if facts.linked else f"{said}, not linked"
