"""`inv host-setup` against a host that has nothing yet."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops import errors
from ops.environment import Address
from ops.hosts import Line, host_setup
from tests.fleet.machines import Fleet, Host

pytestmark = pytest.mark.e2e

Setup = Callable[..., dict[str, tuple[str, ...]]]
SITE = "etc/nginx/sites-available/mltrading-staging"
# A release in the smallest possible form: something that answers on the socket.
ANSWER = (
    "import socket; s = socket.socket(socket.AF_UNIX); s.bind('app.sock'); s.listen()"
    "\nwhile True:\n c = s.accept()[0]; print(c.recv(9999).decode(), flush=True);"
    " c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi'); c.close()\n"
)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(1) as hosts:
        root = hosts.hosts[0]
        # Bare: no user of ours, no key of his, nothing running.
        for command in (
            "loginctl disable-linger deploy; systemctl stop user@$(id -u deploy)",
            "userdel --remove deploy; ! id deploy",
            "systemctl is-active nginx && exit 1 || true",
        ):
            done = root.ssh(command, user="root")
            assert done.returncode == 0 or "userdel" not in command, done.stderr
        yield hosts


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    return fleet.hosts[0]


@pytest.fixture(scope="module")
def setup(fleet: Fleet, host: Host) -> Setup:
    def act(
        known_hosts: str = "", hosts_variable: str = "", **options: object
    ) -> dict[str, tuple[str, ...]]:
        environ = {
            "MLTRADING_STAGING_HOSTS": hosts_variable,
            "MLTRADING_SSH_KEY": str(fleet.key),
            "MLTRADING_KNOWN_HOSTS": known_hosts or str(fleet.known_hosts),
        }
        asked = {"key": f"{fleet.key}.pub", "environ": environ, **options}
        return host_setup("staging", host.address, **asked)

    return act


def said(host: Host, command: str, user: str = "root") -> str:
    done = host.ssh(command, user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def status(host: Host, path: str = "/", port: int = 80) -> tuple[int, str]:
    """Ask the front door as a user would: its code and Retry-After."""
    wire = http.client.HTTPConnection(host.address, port, timeout=5)
    with contextlib.closing(wire):
        wire.request("GET", path)
        answer = wire.getresponse()
        return answer.status, answer.headers.get("Retry-After", "")


def test_a_bare_host_is_prepared_once(
    setup: Setup, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup(dry_run=True) == {host.address: ()}
    assert not (host.root / SITE).exists()
    assert "to do" in capsys.readouterr().err

    assert setup() == {
        host.address: ("user", "key", "linger", "folders", "site", "nginx")
    }
    assert "ufw allow 80/tcp" in capsys.readouterr().err
    assert said(host, "systemctl --user is-system-running --wait", "deploy")

    before = said(host, "find /etc /home -printf '%p %m %u %g %T@ %C@\\n' | sort")
    assert setup() == {host.address: ()}
    after = said(host, "find /etc /home -printf '%p %m %u %g %T@ %C@\\n' | sort")
    assert after == before
    assert "nothing to do" in capsys.readouterr().err


def test_the_door_says_that_nobody_serves(host: Host) -> None:
    assert status(host) == (503, "5")


def test_the_door_dials_what_is_current(fleet: Fleet, host: Host) -> None:
    release = "mltrading/staging/releases/v1"
    (host.root / "home/deploy/answer.py").write_text(ANSWER)
    said(host, f"mkdir -p {release} && chmod 711 mltrading/staging/releases", "deploy")
    serve = f"systemd-run --user -q -u v1 -p WorkingDirectory=/home/deploy/{release}"
    serve += " -p UMask=0077 -p StandardOutput=file:/home/deploy/asked"
    said(host, f'{serve} /usr/bin/python3 -c "$(cat answer.py)"', "deploy")
    said(host, f"until [ -S {release}/app.sock ]; do :; done", "deploy")
    said(host, f"chmod 711 {release}; chmod 777 {release}/app.sock", "deploy")
    said(host, "ln -s releases/v1 mltrading/staging/current", "deploy")
    assert status(host, "/charts?a=b%2Fc") == (200, "")
    asked = (host.root / "home/deploy/asked").read_text()
    assert asked.startswith("GET /charts?a=b%2Fc HTTP/1.1")
    for line in (
        "Connection: close",
        f"Host: {host.address}",
        f"X-Forwarded-For: {fleet.gateway}",
        "X-Forwarded-Proto: http",
    ):
        assert line in asked


def test_nobody_else_comes_near_a_release(host: Host) -> None:
    """The web server passes to the socket; others stop at the home."""
    folder = "/home/deploy/mltrading/staging/current"
    as_web = "runuser -u www-data --"
    assert said(host, f"{as_web} test -S {folder}/app.sock && echo yes") == "yes"
    assert host.ssh(f"{as_web} ls {folder}/", user="root").returncode != 0
    assert host.ssh(f"{as_web} ls /home/deploy", user="root").returncode != 0
    for path in (f"{folder}/app.sock", "/home/deploy/answer.py"):
        one = f"runuser -u nobody -- test -e {path}"
        assert host.ssh(one, user="root").returncode == 1


def test_all_of_it_comes_back_with_the_host(host: Host) -> None:
    host.reboot()
    assert status(host) == (503, "5")


def test_a_site_that_was_changed_is_written_again(setup: Setup, host: Host) -> None:
    said(host, f"sed -i 's/60s/61s/' /{SITE}; chmod 755 /home/deploy")
    assert setup() == {host.address: ("folders", "site", "nginx")}
    assert "61s" not in (host.root / SITE).read_text()


def test_a_reload_that_a_killed_run_left_out_is_made_up(
    setup: Setup, host: Host
) -> None:
    said(host, f"touch /{SITE}")
    assert setup() == {host.address: ("nginx",)}
    assert setup() == {host.address: ()}


def test_a_site_that_nginx_refuses_is_put_back(setup: Setup, host: Host) -> None:
    broken = "/etc/nginx/conf.d/broken.conf"
    before = (host.root / SITE).read_text()
    said(host, f"echo nonsense >{broken}")
    with pytest.raises(errors.StepFailed, match="nginx ended with 1") as failed:
        setup(port=81)
    assert "broken.conf" in failed.value.detail
    assert (host.root / SITE).read_text() == before
    said(host, f"rm {broken}")
    assert status(host) == (503, "5")


def test_a_port_of_another_program_is_refused(setup: Setup, host: Host) -> None:
    with pytest.raises(errors.Refused, match="port 22 is taken by .*ssh"):
        setup(port=22)


def test_a_port_of_another_site_is_refused(setup: Setup, host: Host) -> None:
    other = "/etc/nginx/sites-enabled/shop"
    said(host, f"echo 'server {{ listen 127.0.0.1:8080; }}' >{other}")
    with pytest.raises(errors.Refused, match="listens on port 8080: shop"):
        setup(port=8080)
    said(host, f"rm {other}")


def test_an_unknown_host_is_rejected_with_what_to_type(
    setup: Setup, host: Host, tmp_path: Path
) -> None:
    nobody = tmp_path / "known_hosts"
    nobody.touch()
    with pytest.raises(errors.Refused, match="is not known") as refused:
        setup(known_hosts=str(nobody))
    assert f"{host.address} >> {nobody}" in refused.value.next
    assert nobody.read_text() == ""


def test_another_key_than_the_noted_one_is_told_apart(
    setup: Setup, fleet: Fleet, host: Host, tmp_path: Path
) -> None:
    other = tmp_path / "known_hosts"
    kind, blob, *_ = Path(f"{fleet.key}.pub").read_text().split()
    other.write_text(f"{host.address} {kind} {blob}\n")
    with pytest.raises(errors.Refused, match="HAS CHANGED"):
        setup(known_hosts=str(other))


def test_who_may_not_become_root_is_refused(setup: Setup) -> None:
    with pytest.raises(errors.Refused, match="deploy may not become root"):
        setup(user="deploy")
    with pytest.raises(
        errors.Refused, match="can't be reached: it does not take our key"
    ):
        setup(user="nobody")


def test_a_link_in_the_home_does_not_lead_root_astray(setup: Setup, host: Host) -> None:
    said(host, "mv mltrading elsewhere && ln -s /etc mltrading", "deploy")
    with pytest.raises(errors.StepFailed, match="folders failed"):
        setup()
    assert (host.root / "etc").stat().st_uid == 0
    said(host, "rm mltrading && mv elsewhere mltrading", "deploy")
    assert setup() == {host.address: ()}


def test_packages_that_are_missing_are_installed_first(
    setup: Setup, host: Host
) -> None:
    """No network here: an apt-get of ours says what it was asked for."""
    known, apt = "/var/lib/dpkg/status", "/usr/local/sbin/apt-get"
    put_back = f"[ $1 = update ] || cp /root/was {known}"
    (host.root / apt[1:]).write_text(
        f'#!/bin/sh\necho "$@" >>/root/asked\n{put_back}\n'
    )
    (host.root / apt[1:]).chmod(0o755)
    said(host, f"cp {known} /root/was; sed -i 's/^Package: nginx$/&-not/' {known}")
    assert setup() == {host.address: ("packages",)}
    assert said(host, "cat /root/asked").splitlines() == [
        "update",
        "install -y --no-install-recommends nginx",
    ]


def test_words_and_texts_arrive_as_they_are(fleet: Fleet, host: Host) -> None:
    environ = {"MLTRADING_SSH_KEY": str(fleet.key)}
    environ["MLTRADING_KNOWN_HOSTS"] = str(fleet.known_hosts)
    with Line(Address("root", host.address), environ) as line:
        line.open()
        assert line.run(("printf", "%s", "a 'b' $c;")).out == "a 'b' $c;"
        assert line.run(("cat",), text="told\n").out == "told\n"
        with pytest.raises(errors.StepFailed, match="no end after 0.2 s"):
            line.run(("sleep", "9"), timeout=0.2)
        with pytest.raises(errors.StepFailed, match="the connection was cut"):
            line.run(("pkill", "-9", "-n", "sshd"))


def test_a_database_lets_only_the_hosts_in_and_its_password_stays_here(
    setup: Setup, host: Host, tmp_path: Path
) -> None:
    kept = tmp_path / "database.env"
    asked = {
        "role": "database",
        "url_file": str(kept),
        "hosts_variable": f"deploy@{host.address}",
    }
    steps = set(setup(**asked)[host.address])
    assert {"tls", "address", "access", "role", "database"} <= steps
    assert setup(**asked) == {host.address: ()}
    url = kept.read_text().split("'")[1]
    asks = f"{kept.read_text()}psql -Atc 'SELECT current_user' $DATABASE_URL_STAGING"
    assert said(host, asks) == "mltrading_staging"
    plain = host.ssh(f"{asks}'?sslmode=disable'", user="root")
    assert "no encryption" in plain.stderr
    # This machine is in the hosts' network and is none of them.
    other = subprocess.run(
        ["psql", url, "-c", "SELECT 1"], capture_output=True, text=True
    )
    assert "no pg_hba.conf entry" in other.stderr
    password = url.split(":")[2].partition("@")[0]
    found = host.ssh(
        f"grep -rlF {password} /etc /var/log /var/lib/postgresql", user="root"
    )
    assert found.stdout == ""
