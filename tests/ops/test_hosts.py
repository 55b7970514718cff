"""What a host lacks, what is refused, and what is typed wrongly; no host is asked."""

from __future__ import annotations

import json
import os
import pwd
import stat
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from ops import environment, errors, hosts
from ops.environment import Address
from ops.hosts import Line, addresses, on_host, plan, public_key, wished
from ops.hosts.plan import Facts, Wish, steps
from ops.shell import Result

KEY = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1n0J7aMsZS0cV7Hu8CyiY0v0nTS9FKaGyzr"
    "cS7Rpcs ann@desk"
)
WISH = Wish("staging", KEY, "mltrading/staging")
HOME = "/home/deploy"
FOLDERS = {
    HOME: ("deploy", "www-data", 0o710),
    f"{HOME}/mltrading": ("deploy", "deploy", 0o711),
    f"{HOME}/mltrading/staging": ("deploy", "deploy", 0o711),
}


def ready(**changes: object) -> Facts:
    """Return the facts of a host that is as wished, but for the changes."""
    facts: dict[str, object] = {
        "python": (3, 11, 2),
        "system": "debian",
        "uid": 1000,
        "group": "deploy",
        "home": HOME,
        "shell": "/bin/bash",
        "key": True,
        "linger": True,
        "folders": FOLDERS,
        "linked": True,
        "enabled": True,
        "active": True,
    }
    facts["site"] = plan.site(WISH, Facts(home=HOME))
    return Facts(**{**facts, **changes})


def names(facts: Facts, wish: Wish = WISH) -> list[str]:
    return [step.name for step in steps(wish, facts)]


def test_nothing_is_done_on_a_host_that_is_ready() -> None:
    assert names(ready()) == []
    assert {row[2] for row in plan.table(WISH, ready())} == {"stays"}


def test_a_bare_host_gets_everything_in_order() -> None:
    bare = Facts(missing=("python3", "nginx"))
    every = ["packages", "user", "key", "linger", "folders", "site", "nginx"]
    assert names(bare) == every
    assert "stays" not in {row[2] for row in plan.table(WISH, bare)}


@pytest.mark.parametrize(
    ("facts", "todo"),
    [
        ({"missing": ("nginx",)}, ["packages"]),
        ({"shell": "/usr/sbin/nologin"}, ["user"]),
        ({"key": False}, ["key"]),
        ({"linger": False}, ["linger"]),
        ({"folders": {**FOLDERS, HOME: ("deploy", "deploy", 0o755)}}, ["folders"]),
        ({"site": "another"}, ["site", "nginx"]),
        ({"linked": False}, ["site", "nginx"]),
        ({"default": True}, ["site", "nginx"]),
        ({"ipv6": True}, ["site", "nginx"]),
        ({"default": True, "active": False}, ["site", "nginx"]),
        ({"enabled": False}, ["nginx"]),
        ({"stale": True}, ["nginx"]),
    ],
)
def test_what_differs_is_mended(facts: dict[str, object], todo: list[str]) -> None:
    assert names(ready(**facts)) == todo


def test_without_a_door_nginx_is_left_alone() -> None:
    wish = Wish("staging", KEY, "mltrading/staging", door="none")
    folders = {**FOLDERS, HOME: ("deploy", "deploy", 0o710)}
    facts = ready(folders=folders, site=None, holder="apache2", active=False)
    assert names(facts, wish) == []
    assert "nginx" not in wish.packages


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"python": (3, 9, 2)}, "Python 3.9.2"),
        ({"system": "fedora"}, "runs fedora"),
        ({"systemd": False}, "not run by systemd"),
        ({"holder": "apache2"}, "port 80 is taken by apache2"),
        ({"others": ("shop",)}, "listens on port 80: shop"),
    ],
)
def test_what_is_in_the_way_is_refused(facts: dict[str, object], said: str) -> None:
    with pytest.raises(errors.Refused, match=said) as refused:
        steps(WISH, ready(**facts), "web1")
    assert refused.value.next and "web1" in refused.value.where


def test_a_system_made_from_debian_is_taken() -> None:
    assert names(ready(system="linuxmint ubuntu debian")) == []


def test_the_site_is_static_and_tries_nothing_twice() -> None:
    text = plan.site(Wish("prod", KEY, "mltrading/prod", port=8080), ready(ipv6=True))
    for line in (
        "listen 8080 default_server;",
        "listen [::]:8080 default_server;",
        "proxy_pass http://unix:/home/deploy/mltrading/prod/current/app.sock;",
        "proxy_http_version 1.1;",
        "proxy_set_header Connection close;",
        "proxy_next_upstream off;",
        'return 503 "No release serves at the moment.\\n";',
    ):
        assert line in text
    assert "upstream {" not in text and "keepalive " not in text


def test_what_to_type_when_hosts_are_prepared(tmp_path: Path) -> None:
    row, places = environment.load("staging"), addresses("one,two:2222", "root")
    home = {"MLTRADING_STATE": str(tmp_path)}
    there = {**home, "MLTRADING_STAGING_HOSTS": "deploy@one"}
    named = "export MLTRADING_STAGING_HOSTS=deploy@one,deploy@two:2222"
    doctor = "inv doctor --env staging"
    assert hosts._next(row, WISH, places, "", home) == named
    assert hosts._next(row, WISH, places, "", there) == doctor
    kept = tmp_path / "db env"
    kept.write_text("export DATABASE_URL_STAGING='x'")
    database = Wish("staging", "", "mltrading/staging", role="database")
    assert hosts._next(row, database, places, str(kept), there) == f". '{kept}'"
    told = {**there, "DATABASE_URL_STAGING": "x"}
    assert hosts._next(row, database, places, str(kept), told) == doctor


def test_the_firewall_is_a_hint_for_the_port() -> None:
    assert "ufw allow 8080/tcp" in plan.firewall(
        Wish("prod", KEY, "mltrading/prod", port=8080)
    )
    assert "80/tcp" not in plan.firewall(
        Wish("prod", KEY, "mltrading/prod", door="none")
    )


def test_hosts_are_read_with_user_and_port() -> None:
    assert addresses("a, admin@b.example:2222 ,10.0.0.1", "root") == (
        Address("root", "a"),
        Address("admin", "b.example", 2222),
        Address("root", "10.0.0.1"),
    )


def test_an_environments_own_hosts_are_entered_as_root() -> None:
    environ = {"MLTRADING_STAGING_HOSTS": "deploy@a,deploy@b:2222"}
    row = environment.load("staging")
    assert hosts.own_addresses(row, "root", environ) == (
        Address("root", "a"),
        Address("root", "b", 2222),
    )


@pytest.mark.parametrize(
    "word",
    ["", ",", "-oProxyCommand=id", "a b", "a;id", "a:0", "a:65536", "a:", "a:²"]
    + ["-l@a", "$(id)", "a,a", "a/b", "root@", "@a"],
)
def test_a_name_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(errors.Usage) as refused:
        addresses(word, "root")
    assert "--hosts" in refused.value.where and refused.value.allowed


def key_file(folder: Path, text: str = KEY) -> str:
    path = folder / "key.pub"
    path.write_text(f"{text}\n")
    return str(path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"env": "local"}, "has no hosts to prepare"),
        ({"door": "apache"}, "no door"),
        ({"port": 0}, "0 is no port"),
    ],
)
def test_what_is_typed_wrongly_is_refused(
    asked: dict[str, object], said: str, tmp_path: Path
) -> None:
    words = {"env": "prod", "door": "nginx", "port": None, **asked}
    row = environment.load(words.pop("env"))
    with pytest.raises(errors.Usage, match=said):
        wished(row, **words, key=key_file(tmp_path))


def test_port_and_folder_are_those_of_the_environment(tmp_path: Path) -> None:
    wish = wished(
        environment.load("prod"), door="nginx", port=None, key=key_file(tmp_path)
    )
    assert (wish.root, wish.port) == ("mltrading/prod", 80)


def test_a_public_key_is_taken_as_it_is(tmp_path: Path) -> None:
    assert public_key(Path(key_file(tmp_path))) == KEY
    assert steps(WISH, ready(key=False))[0].said.startswith("let ann@desk (ssh-")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc", "a private key"),
        (f"{KEY}\n{KEY}", "no public key"),
        (KEY.replace("ssh-ed25519", "ssh-rsa"), "no public key"),
        (f'command="id" {KEY}', "no public key"),
        ("ssh-ed25519 !!!!", "no public key"),
        (f"{KEY}\x1b[31m", "no public key"),
    ],
)
def test_what_is_no_public_key_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(errors.Usage, match=said) as refused:
        public_key(Path(key_file(tmp_path, text)))
    assert "--key FILE" in refused.value.next


def test_a_key_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(errors.Usage, match="No such file") as refused:
        public_key(tmp_path / "none.pub")
    assert "ssh-keygen" in refused.value.next


def test_what_goes_over_the_line_is_quoted() -> None:
    admin = Line(Address("admin", "web1"))
    admin._connection = MagicMock()
    channel = admin._connection.transport.open_session().__enter__()
    channel.recv.return_value = channel.recv_stderr.return_value = b""
    channel.recv_exit_status.return_value = 0
    assert admin.run(("printf", "a b; $(id)")).ok
    channel.exec_command.assert_called_once_with(
        "sudo -n -- env LC_ALL=C.UTF-8 printf 'a b; $(id)'"
    )


def test_a_host_that_is_not_there_says_what_to_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(*_: object) -> None:
        raise hosts.link.Unreachable("no connection: No route to host")

    monkeypatch.setattr(hosts.link, "connect", connect)
    with pytest.raises(errors.Refused, match="web1:2222 can't be reached") as refused:
        Line(Address("root", "web1", 2222)).open()
    assert refused.value.next == "ssh -p 2222 root@web1 true"


class Bare:
    """A line to a host that has no Python, until its packages are installed."""

    name = "web1"
    user = "root"

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.facts = ready()

    def run(self, argv: tuple[str, ...], **options: object) -> Result:
        self.ran.append(tuple(argv))
        installed = any("install" in words for words in self.ran)
        if argv[0] == "dpkg-query":
            packages = argv[3:] if installed else ()
            return Result(0, "".join(f"{p} installed\n" for p in packages), "", 0)
        if argv[0] == "systemctl":
            return Result(0, "UnitFileState=enabled\nActiveState=active\n", "", 0)
        return Result(0 if installed or argv[0] != "python3" else 127, "", "", 0)

    def call(self, verb: str, arguments: object) -> dict[str, object]:
        seen = {name: getattr(self.facts, name) for name in Facts.__slots__}
        return json.loads(json.dumps(seen))


def test_a_host_without_python_is_looked_at_again_once_it_has_it() -> None:
    bare = Bare()
    facts = hosts.look(bare, WISH)
    assert facts == Facts(missing=WISH.packages)
    assert hosts._act(bare, WISH, facts) == ("packages",)
    assert [words[:3] for words in bare.ran if "apt-get" in words] == [
        ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get")
    ] * 2


def test_a_person_who_says_no_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(errors.Refused, match="not prepared"):
        hosts._agree(2, False, {}, lambda question: "n")
    hosts._agree(2, False, {}, lambda question: "y")
    hosts._agree(2, True, {}, lambda question: "never asked")
    hosts._agree(2, False, {"CI": "1"}, lambda question: "never asked")


# The program that runs on the host -------------------------------------------------


@pytest.fixture
def nginx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give on_host an /etc/nginx of its own, as Debian has it."""
    for name in ("sites-available", "sites-enabled"):
        (tmp_path / name).mkdir()
    (tmp_path / "sites-available" / "default").write_text("listen 80;\n")
    os.symlink("../sites-available/default", tmp_path / "sites-enabled" / "default")
    monkeypatch.setattr(on_host, "SITES", f"{tmp_path}/sites-{{}}/{{}}")
    return tmp_path


def test_a_site_is_put_in_and_back_out_again(nginx: Path) -> None:
    before = on_host.site({"name": "mltrading-prod", "text": "new"})
    enabled = nginx / "sites-enabled"
    assert [path.name for path in enabled.iterdir()] == ["mltrading-prod"]
    assert (enabled / "mltrading-prod").read_text() == "new"
    on_host.restore(json.loads(json.dumps(before)))
    assert [path.name for path in enabled.iterdir()] == ["default"]
    assert [path.name for path in (nginx / "sites-available").iterdir()] == ["default"]


@pytest.mark.parametrize(
    ("text", "wants"),
    [
        ("listen 80;", True),
        ("  listen [::]:80 default_server;", True),
        ("listen 127.0.0.1:80;", True),
        ("server { listen 80; }", True),
        ("listen 8080;", False),
        ("listen 80.1.1.1:81;", False),
        ("# listen 80;", False),
    ],
)
def test_a_site_that_wants_the_port_is_seen(
    nginx: Path, text: str, wants: bool
) -> None:
    (nginx / "sites-enabled" / "shop").write_text(f"server {{\n{text}\n}}\n")
    seen = on_host._nginx("mltrading-prod", 80)
    assert seen["others"] == (["shop"] if wants else [])
    assert seen["default"] and not seen["linked"] and seen["site"] is None


def test_a_key_is_looked_for_as_sshd_would(tmp_path: Path) -> None:
    home, path = str(tmp_path), tmp_path / ".ssh" / "authorized_keys"
    assert not on_host._authorized(home, KEY)
    path.parent.mkdir(mode=0o700)
    path.write_text(f"# {KEY}\n")
    path.chmod(0o600)
    assert not on_host._authorized(home, KEY)
    path.write_text(f"from=\"10.0.0.0/8\" {KEY.replace('ann@desk', 'other')}\n")
    assert on_host._authorized(home, KEY)
    path.chmod(0o666)
    assert not on_host._authorized(home, KEY)


def test_folders_are_made_and_links_are_not_followed(tmp_path: Path) -> None:
    user = pwd.getpwuid(os.getuid()).pw_name
    group = on_host._row(str(tmp_path))[1]
    top = tmp_path / "home"
    top.mkdir()
    rows = [[str(top), user, group, 0o710], [str(top / "a/b"), user, group, 0o711]]
    on_host.folders({"folders": rows})
    on_host.folders({"folders": rows})
    assert on_host._row(str(top / "a/b")) == [user, group, 0o711]
    assert stat.S_IMODE((top / "a").stat().st_mode) == 0o700
    (top / "a/b").rmdir()
    (top / "a/b").symlink_to("/")
    with pytest.raises(OSError):
        on_host.folders({"folders": rows})


def test_what_is_sent_runs_alone(tmp_path: Path) -> None:
    """It is a program of its own: no module of ours is there."""
    import subprocess

    wish = {
        "user": "nobody-here",
        "root": "a/b",
        "key": KEY,
        "door": "none",
        "role": "app",
    }
    text = hosts.ON_HOST.read_text()
    argv = [sys.executable, "-I", "-", "observe", json.dumps(wish)]
    done = subprocess.run(
        argv, input=text, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["python"] == list(sys.version_info[:3])
