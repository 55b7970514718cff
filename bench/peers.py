"""Other tools that deploy, set up the way their manuals do it.

Each unpacks the same wheels into a folder of their release, moves a symlink and
restarts one user unit that serves the dashboard: no gates, no dependencies, no health
check. Each has a folder, a unit and a port of its own on the host.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.errors import Refused
from tests.fleet.machines import USER, Fleet, Host

PYINFRA = "pyinfra==3.10.0"
HOME = Path("/home") / USER
NAMES = ("capistrano", "pyinfra", "ansible")
PORTS = dict(zip(NAMES, (8101, 8102, 8103), strict=True))

UNIT = """\
[Service]
Type=notify
NotifyAccess=all
WorkingDirectory={root}/current
EnvironmentFile={root}/environ.unit
ExecStart={root}/current/env/bin/python -m gunicorn \
--config python:mltrading_dashboard.gunicorn_conf --bind 0.0.0.0:{port} \
mltrading_dashboard.wsgi:server
KillMode=mixed
"""

CAPFILE = """\
require "capistrano/setup"
require "capistrano/deploy"
require "capistrano/scm/plugin"

class Archive < Capistrano::SCM::Plugin
  def set_defaults
  end

  def register_hooks
    after "deploy:new_release_path", "archive:create_release"
    before "deploy:set_current_revision", "archive:set_current_revision"
  end

  def define_tasks
    namespace :archive do
      task :create_release do
        on release_roles :all do
          execute :mkdir, "-p", "#{{release_path}}/lib"
          upload! "{archive}", "#{{release_path}}/app.tar.gz"
          execute :tar, "-xzf", "#{{release_path}}/app.tar.gz", "-C",
                  "#{{release_path}}/lib"
          execute :ln, "-s", "{env}", "#{{release_path}}/env"
        end
      end
      task :set_current_revision do
        set :current_revision, "bench"
      end
    end
  end
end

install_plugin Archive
"""

DEPLOY_RB = """\
set :application, "dashboard"
set :deploy_to, "{root}"
set :format, :airbrussh
set :ssh_options, {{
  keys: ["{key}"], keys_only: true, auth_methods: ["publickey"],
  user_known_hosts_file: "{known_hosts}", verify_host_key: :always
}}

namespace :deploy do
  after :publishing, :restart do
    on roles(:app) do
      with xdg_runtime_dir: "/run/user/{uid}" do
        execute :systemctl, "--user", "restart", "capistrano"
      end
    end
  end
end
"""

PYINFRA_DEPLOY = """\
from pyinfra import host
from pyinfra.operations import files, server

root, release = "{root}", f"{root}/releases/{{host.data.release}}"
if host.data.act == "deploy":
    files.directory(path=f"{{release}}/lib")
    files.put(src="{archive}", dest=f"{{release}}/app.tar.gz")
    server.shell(commands=[
        f"tar -xzf {{release}}/app.tar.gz -C {{release}}/lib",
        f"ln -s {env} {{release}}/env",
    ])
server.shell(commands=[
    f"ln -sfn {{release}} {{root}}/next && mv -T {{root}}/next {{root}}/current",
    "XDG_RUNTIME_DIR=/run/user/{uid} systemctl --user restart pyinfra",
])
"""

PYINFRA_INVENTORY = """\
hosts = [("{address}", {{
    "ssh_user": "{user}", "ssh_key": "{key}",
    "ssh_known_hosts_file": "{known_hosts}", "ssh_strict_host_key_checking": "yes",
}})]
"""

ANSIBLE_CFG = """\
[defaults]
inventory = inventory
gathering = explicit
[ssh_connection]
pipelining = True
ssh_args = -F none -o ControlMaster=auto -o ControlPersist=60s -o IdentitiesOnly=yes \
-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes
"""

ANSIBLE_INVENTORY = """\
{address} ansible_user={user} ansible_ssh_private_key_file={key} \
ansible_python_interpreter=/usr/bin/python3
"""

PLAYBOOK = """\
- hosts: all
  vars:
    folder: "{root}/releases/{{{{ release }}}}"
  tasks:
    - file: {{path: "{{{{ folder }}}}/lib", state: directory}}
      when: act == "deploy"
    - unarchive: {{src: "{archive}", dest: "{{{{ folder }}}}/lib"}}
      when: act == "deploy"
    - file: {{src: "{env}", dest: "{{{{ folder }}}}/env", state: link}}
      when: act == "deploy"
    - file: {{src: "{{{{ folder }}}}", dest: "{root}/current", state: link}}
    - systemd_service: {{name: ansible, scope: user, state: restarted}}
      environment:
        XDG_RUNTIME_DIR: /run/user/{uid}
"""


@dataclass
class Peer:
    """One tool on one host; `deploy` and `rollback` are command lines."""

    name: str
    folder: Path
    programs: Path
    count: int = 0

    def environ(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE")},
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "LC_ALL": "C.UTF-8",
        }

    def deploy(self) -> tuple[str, ...]:
        """Return the command of a deploy of the next release."""
        self.count += 1
        return self._command("deploy", self.count)

    def rollback(self) -> tuple[str, ...]:
        """Return the command that goes back by one release."""
        return self._command("rollback", self.count - 1)

    def _command(self, act: str, number: int) -> tuple[str, ...]:
        if self.name == "capistrano":
            task = "deploy" if act == "deploy" else "deploy:rollback"
            return ("cap", "production", task)
        if self.name == "pyinfra":
            data = ("--data", f"act={act}", "--data", f"release=r{number}")
            program = str(self.programs / "pyinfra")
            return (program, "-y", *data, "inventory.py", "deploy.py")
        more = ("-e", f"act={act} release=r{number}")
        return (str(self.programs / "ansible-playbook"), *more, "site.yml")


def install(folder: Path) -> Path:
    """Return a folder of programs with pyinfra and Ansible, from the package index.

    Raises:
        Refused: Capistrano is not there; only the system's packages have it.
    """
    if not shutil.which("cap"):
        raise Refused(
            "Capistrano is not installed", next="sudo apt-get install capistrano"
        )
    venv = folder / "peers"
    uv = os.environ.get("UV") or shutil.which("uv") or "uv"
    subprocess.run(
        [uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True
    )
    python = str(venv / "bin" / "python")
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, PYINFRA, "ansible-core"],
        check=True,
    )
    return venv / "bin"


def prepare(fleet: Fleet, host: Host, folder: Path, programs: Path) -> list[Peer]:
    """Set every tool up to deploy what the host's current release is made of."""
    staging = host.root / str(HOME)[1:] / "mltrading" / "staging"
    release = staging / "releases" / os.readlink(staging / "current").split("/")[-1]
    env = HOME / "mltrading/staging/envs" / Path(os.readlink(release / "env")).name
    archive = folder / "app.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        for path in sorted((release / "lib").iterdir()):
            out.add(path, path.name, filter=_sources)
    uid = host.ssh("id -u").stdout.strip()
    environ = (release / "environ.unit").read_text()
    peers = []
    for name in NAMES:
        root = HOME / name
        words = {
            "root": str(root),
            "port": PORTS[name],
            "archive": str(archive),
            "env": str(env),
            "key": str(fleet.key),
            "known_hosts": str(fleet.known_hosts),
            "address": host.address,
            "user": USER,
            "uid": uid,
        }
        there = folder / name
        (there / "config" / "deploy").mkdir(parents=True)
        for file, text in _files(name, words).items():
            (there / file).write_text(text)
        _on_host(host, name, root, environ, UNIT.format(**words))
        peers.append(Peer(name, there, programs))
    return peers


def _files(name: str, words: Mapping[str, object]) -> dict[str, str]:
    if name == "capistrano":
        server = 'server "{address}", user: "{user}", roles: %w[app]\n'
        return {
            "Capfile": CAPFILE.format(**words),
            "config/deploy.rb": DEPLOY_RB.format(**words),
            "config/deploy/production.rb": server.format(**words),
        }
    if name == "pyinfra":
        return {
            "deploy.py": PYINFRA_DEPLOY.format(**words),
            "inventory.py": PYINFRA_INVENTORY.format(**words),
        }
    return {
        "ansible.cfg": ANSIBLE_CFG.format(**words),
        "inventory": ANSIBLE_INVENTORY.format(**words),
        "site.yml": PLAYBOOK.format(**words),
    }


def _on_host(host: Host, name: str, root: Path, environ: str, unit: str) -> None:
    """Put a tool's unit and the variables of its release on the host."""
    lines = [line for line in environ.splitlines() if not line.startswith("PYTHONPATH")]
    lines = [line for line in lines if not line.startswith("MLTRADING_RUNTIME_DIR")]
    lines.append(f'PYTHONPATH="{root}/current/lib"')
    lines.append(f'MLTRADING_RUNTIME_DIR="{root}/run"')
    units = HOME / ".config/systemd/user"
    texts = {
        root / "environ.unit": "\n".join(lines) + "\n",
        units / f"{name}.service": unit,
    }
    folders = f"mkdir -p {root}/releases {root}/run {units}"
    host.inside("sh", "-c", folders, user=USER)
    for path, text in texts.items():
        file = host.root / str(path)[1:]
        file.write_text(text)
        file.chmod(0o644)
    host.ssh("systemctl --user daemon-reload")


def _sources(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member
