"""What a balancer lacks, and the files that HAProxy works by; no host is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ops import environment, errors, hosts
from ops.hosts import balancer, on_host, plan, wished
from ops.hosts.plan import Facts, Wish
from tests.ops.test_hosts import KEY, key_file

SERVERS = (("10.0.0.1", "10.0.0.1:80"), ("web2:2222", "web2:80"))
WISH = Wish("staging", KEY, "mltrading/staging", role="balancer", servers=SERVERS)
VARIABLES = {
    "MLTRADING_STAGING_HOSTS": "deploy@10.0.0.1,deploy@web2:2222",
    "MLTRADING_STAGING_BALANCERS": "deploy@10.0.0.9",
}


def ready(**changes: object) -> Facts:
    facts: dict[str, object] = {
        "python": (3, 11, 2),
        "system": "debian",
        "uid": 1000,
        "key": True,
        "shell": "/bin/bash",
        "enabled": True,
        "active": True,
        "config": balancer.config(WISH, Facts()),
        "unit": balancer.unit(WISH),
    }
    return Facts(**{**facts, **changes})


@pytest.mark.parametrize(
    ("facts", "todo"),
    [
        ({}, []),
        ({"missing": ("haproxy",)}, ["packages"]),
        ({"config": "another"}, ["balancer", "reload"]),
        ({"unit": "another"}, ["balancer", "daemon-reload", "reload"]),
        ({"stale": True}, ["reload"]),
        ({"active": False}, ["enable"]),
        ({"config": None, "active": False}, ["balancer", "enable"]),
        ({"linger": False}, []),
    ],
)
def test_what_differs_is_mended(facts: dict[str, object], todo: list[str]) -> None:
    steps = balancer.steps(WISH, ready(**facts))
    assert [step.argv[1] if step.argv else step.name for step in steps] == todo


def test_a_port_that_nginx_has_is_refused_with_the_keys_to_change() -> None:
    with pytest.raises(errors.Refused, match="port 80 is taken by nginx") as refused:
        balancer.steps(WISH, ready(holder="nginx"), "web1")
    assert "`public`" in refused.value.next


def test_the_hosts_behind_it_are_those_of_the_environment(tmp_path: Path) -> None:
    row = environment.load("staging")
    asked = {"door": "nginx", "port": None, "key": key_file(tmp_path)}
    wish = wished(row, role="balancer", environ=VARIABLES, **asked)
    assert (wish.servers, wish.port) == (SERVERS, 80)
    (own,) = hosts.own_addresses(row, "root", VARIABLES, "balancer")
    assert str(own) == "root@10.0.0.9"


def test_an_environment_without_balancers_says_which_variable_names_them() -> None:
    with pytest.raises(errors.Usage, match="MLTRADING_STAGING_BALANCERS is not set"):
        hosts.own_addresses(environment.load("staging"), "root", {}, "balancer")


def test_nginx_believes_the_balancers_and_nobody_else(tmp_path: Path) -> None:
    row = environment.load("staging")
    asked = {"door": "nginx", "port": None, "key": key_file(tmp_path)}
    behind = plan.site(wished(row, environ=VARIABLES, **asked), Facts())
    assert "set_real_ip_from 10.0.0.9;\n    real_ip_header X-Forwarded-For;" in behind
    assert "real_ip" not in plan.site(wished(row, environ={}, **asked), Facts())


@pytest.mark.integration
@pytest.mark.parametrize("ipv6", [False, True])
def test_haproxy_takes_the_configuration(tmp_path: Path, ipv6: bool) -> None:
    wish = Wish("staging", KEY, "a", role="balancer", servers=SERVERS[:1], user="root")
    path = tmp_path / "haproxy.cfg"
    path.write_text(balancer.config(wish, Facts(ipv6=ipv6)))
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    checked = subprocess.run(
        [program, "-c", "-f", path], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_nothing_that_was_sent_is_sent_again() -> None:
    text = balancer.config(WISH, Facts())
    assert "retry-on conn-failure\n" in text and "option redispatch" in text
    assert "    server web2:2222 web2:80\n" in text


def test_files_are_written_and_put_back(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("before")
    before = on_host.files({"files": [[str(old), "after"], [str(new), "after"]]})
    assert old.read_text() == new.read_text() == "after"
    on_host.put_back(json.loads(json.dumps(before)))
    assert old.read_text() == "before" and not new.exists()
