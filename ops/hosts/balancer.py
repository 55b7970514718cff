"""What a balancer must have: HAProxy, run by a unit of its own for each environment.

Pure, like `plan`, whose values it uses. An HAProxy that the host has for other things
is left alone: its configuration, its unit and its ports.
"""

from __future__ import annotations

from ops.canary import EQUAL
from ops.errors import Refused
from ops.hosts import plan
from ops.hosts.plan import Facts, Step, Wish

_ADMIN = "mode 660 level admin expose-fd listeners"
_CHECKED = (
    f"check inter 1s fastinter 500ms fall 2 rise 1 weight {EQUAL} "
    "init-addr last,libc,none"
)
_AWAY = (
    'status 503 content-type text/plain string "No host serves at the moment.\\n" '
    "hdr Retry-After 5 hdr Cache-Control no-store"
)


def unit_name(wish: Wish) -> str:
    """Return the name of the environment's unit."""
    return f"mltrading-{wish.env}-balancer"


def config_path(wish: Wish) -> str:
    """Return where the environment's configuration is."""
    return f"/etc/haproxy/mltrading-{wish.env}.cfg"


def unit_path(wish: Wish) -> str:
    """Return where the environment's unit is."""
    return f"/etc/systemd/system/{unit_name(wish)}.service"


def steps(wish: Wish, facts: Facts, host: str = "") -> tuple[Step, ...]:
    """Return what is to be done, in order; nothing where all is as wished.

    Raises:
        Refused: the host can't be a balancer, or somebody else has its port.
    """
    plan.refuse(wish, facts, host)
    if facts.holder:
        raise Refused(
            f"port {wish.port} is taken by {facts.holder}",
            where=host,
            allowed="a free port; on a host that is both, nginx needs another one",
            next="change `port` or `public` in ops/environments.toml, or --port",
        )
    return (
        *plan.packages(wish, facts),
        *plan.user(wish, facts, linger=False),
        *_haproxy(wish, facts),
    )


def table(wish: Wish, facts: Facts) -> list[tuple[str, str, str]]:
    """Return (part, what is there, what will be) for people to read."""
    todo = {step.name: step.said for step in steps(wish, facts)}
    same = facts.config == config(wish, facts) and facts.unit == unit(wish)
    there = {
        "packages": plan.present(wish, facts),
        "user": f"{wish.user}, uid {facts.uid}" if facts.uid is not None else "none",
        "key": "may log in" if facts.key else "may not log in",
        "balancer": (
            "none" if facts.config is None else "as wished" if same else "another text"
        ),
        "haproxy": plan.runs(facts),
    }
    return [(part, said, todo.get(part, "stays")) for part, said in there.items()]


def firewall(wish: Wish) -> str:
    """Return the hint for whoever has a firewall; nothing here touches one."""
    return (
        f"a firewall: let SSH and port {wish.port} in "
        f"(ufw allow OpenSSH; ufw allow {wish.port}/tcp), and on the hosts their port "
        "from here only"
    )


def _haproxy(wish: Wish, facts: Facts) -> tuple[Step, ...]:
    todo = []
    name = f"{unit_name(wish)}.service"
    files = [[config_path(wish), config(wish, facts)], [unit_path(wish), unit(wish)]]
    changed = (facts.config, facts.unit) != (config(wish, facts), unit(wish))
    if changed:
        names = ", ".join(name for name, _ in wish.servers)
        todo.append(
            Step(
                "balancer",
                f"port {wish.port} to {names}, asked at /readyz every second",
                verb="files",
                arguments={"files": files},
                check=("haproxy", "-c", "-q", "-f", config_path(wish)),
                undo="put_back",
            )
        )
    if facts.unit != unit(wish):
        todo.append(Step("haproxy", "read the unit", ("systemctl", "daemon-reload")))
    if not (facts.enabled and facts.active):
        start = ("systemctl", "enable", "--now", name)
        todo.append(Step("haproxy", "start it, now and with the host", start))
    if facts.active and (changed or facts.stale):
        said = "work by the new configuration; no connection is dropped"
        todo.append(Step("haproxy", said, ("systemctl", "reload", name)))
    return tuple(todo)


def unit(wish: Wish) -> str:
    """Return the unit: a master that checks before it reads the configuration in."""
    path = config_path(wish)
    return f"""\
# Written by inv host-setup --env {wish.env} --role balancer.
[Unit]
Description=Balancer of MLTrading {wish.env}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
RuntimeDirectory={unit_name(wish)}
RuntimeDirectoryMode=0755
ExecStartPre=/usr/sbin/haproxy -c -q -f {path}
ExecStart=/usr/sbin/haproxy -Ws -f {path}
ExecReload=/usr/sbin/haproxy -c -q -f {path}
ExecReload=/bin/kill -USR2 $MAINPID
KillMode=mixed
SuccessExitStatus=143
Restart=always
RestartSec=1
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""


def config(wish: Wish, facts: Facts) -> str:
    """Return HAProxy's configuration: static; what changes is said at its socket."""
    servers = "\n".join(f"    server {name} {where}" for name, where in wish.servers)
    admin = f"/run/{unit_name(wish)}/admin.sock {_ADMIN} group {wish.user}"
    bind = f":::{wish.port} v4v6" if facts.ipv6 else f":{wish.port}"
    return f"""\
# Written by inv host-setup --env {wish.env} --role balancer, which also undoes changes
# made here.
global
    user haproxy
    group haproxy
    chroot /var/lib/haproxy
    log stdout format raw daemon notice
    maxconn 8000
    hard-stop-after 120s
    # For `inv deploy`: takes hosts out and gives them weights. A reload of this file
    # hands the open ports over, and makes all hosts ready again.
    stats socket {admin}
    stats timeout 30s

defaults
    mode http
    log global
    option dontlognull
    timeout http-request 15s
    timeout http-keep-alive 30s
    timeout client 65s
    timeout server 65s
    timeout connect 2s
    timeout queue 5s
    timeout check 2s

frontend {wish.env}
    bind {bind}
    # Not added to what the client sent: there is no other proxy to believe.
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Proto http
    default_backend {wish.env}

backend {wish.env}
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    # A connection to a host for each request: weights and leaving hold at once, and no
    # request meets a connection that its host is just closing.
    option http-server-close
    # Another host when one can't be connected to. Never a second try of what was sent:
    # a POST may have been carried out.
    retries 3
    option redispatch 1
    retry-on conn-failure
    # A host that lost its power while it was answering is noticed after 11 s.
    option srvtcpka
    srvtcpka-idle 5s
    srvtcpka-intvl 2s
    srvtcpka-cnt 3
    http-error {_AWAY}
    default-server {_CHECKED}
{servers}
"""
