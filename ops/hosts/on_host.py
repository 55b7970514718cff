"""Look at a host and change its files. Sent as text and run there, as root.

Standard library only, and no program is started: what needs one is a step of its own.
Folders and files of the user are never reached through links, so that this user can't
make root write somewhere else.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import platform
import pwd
import re
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

SITES = "/etc/nginx/sites-{}/{}"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def observe(wish: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of this host; changes nothing."""
    facts: dict[str, Any] = {
        "python": list(sys.version_info[:3]),
        "system": _system(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "ipv6": os.path.exists("/proc/net/if_inet6"),
        "linger": os.path.exists(f"/var/lib/systemd/linger/{wish['user']}"),
        "folders": {},
    }
    try:
        user = pwd.getpwnam(wish["user"])
    except KeyError:
        user = None
    if user is not None and wish["key"]:
        paths = [user.pw_dir]
        for part in wish["root"].split("/"):
            paths.append(f"{paths[-1]}/{part}")
        facts |= {
            "uid": user.pw_uid,
            "group": grp.getgrgid(user.pw_gid).gr_name,
            "home": user.pw_dir,
            "shell": user.pw_shell,
            "key": _authorized(user.pw_dir, wish["key"]),
            "folders": {path: row for path in paths for row in [_row(path)] if row},
        }
    if wish["role"] == "database":
        facts["rules"] = _read(wish["rules"]) if wish["rules"] else None
    elif wish["role"] == "balancer":
        facts |= _haproxy(wish["config"], wish["unit"], wish["port"])
    elif wish["door"] == "nginx":
        facts |= _nginx(wish["site"], wish["port"])
    return facts


def authorize(wish: dict[str, Any]) -> dict[str, Any]:
    """Let a public key log in as a user; what else may log in stays."""
    user = pwd.getpwnam(wish["user"])
    os.setgroups([user.pw_gid])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.umask(0o077)
    folder = os.path.join(user.pw_dir, ".ssh")
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o700)
    path = os.path.join(folder, "authorized_keys")
    lines = _read(path).splitlines()
    if not _names(lines, wish["key"]):
        lines.append(wish["key"])
    _replace(path, "".join(f"{line}\n" for line in lines), 0o600)
    return {}


def folders(wish: dict[str, Any]) -> dict[str, Any]:
    """Make folders inside the first of them, each with owner, group and mode."""
    (top, *_), *_ = wish["folders"]
    for path, owner, group, mode in wish["folders"]:
        place = os.open(top, FOLDER)
        for part in filter(None, os.path.relpath(path, top).split("/")):
            if part == ".":
                continue
            try:
                os.mkdir(part, 0o700, dir_fd=place)
            except FileExistsError:
                pass
            inner = os.open(part, FOLDER, dir_fd=place)
            os.close(place)
            place = inner
        os.fchown(place, pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
        os.fchmod(place, mode)
        os.close(place)
    return {}


def site(wish: dict[str, Any]) -> dict[str, Any]:
    """Put a site in and the default one out; return what `restore` needs."""
    available, enabled, default = _places(wish["name"])
    before = {
        "name": wish["name"],
        "text": _read(available) if os.path.exists(available) else None,
        "written": os.stat(available).st_mtime if os.path.exists(available) else 0,
        "linked": os.path.islink(enabled),
        "default": os.readlink(default) if os.path.islink(default) else None,
    }
    _replace(available, wish["text"], 0o644)
    if not os.path.islink(enabled):
        os.symlink(available, enabled)
    if before["default"] is not None:
        os.unlink(default)
    return before


def restore(before: dict[str, Any]) -> dict[str, Any]:
    """Put back what `site` has changed."""
    available, enabled, default = _places(before["name"])
    if before["default"] is not None and not os.path.islink(default):
        os.symlink(before["default"], default)
    if not before["linked"]:
        os.unlink(enabled)
    if before["text"] is None:
        os.unlink(available)
    else:
        _replace(available, before["text"], 0o644)
        # Not newer than what nginx works by.
        os.utime(available, (before["written"], before["written"]))
    return {}


def files(wish: dict[str, Any]) -> dict[str, Any]:
    """Write files; return what `put_back` needs.

    A new one is root's and may be read by all, another keeps its owner and mode.
    """
    before = [
        [path, _read(path), os.stat(path).st_mtime] if os.path.exists(path) else [path]
        for path, _ in wish["files"]
    ]
    for path, text in wish["files"]:
        _rewrite(path, text)
    return {"files": before}


def put_back(before: dict[str, Any]) -> dict[str, Any]:
    """Put back what `files` has changed."""
    for path, *there in before["files"]:
        if not there:
            os.unlink(path)
            continue
        text, written = there
        _rewrite(path, text)
        # Not newer than what works by it.
        os.utime(path, (written, written))
    return {}


def _rewrite(path: str, text: str) -> None:
    """Write a file whole, with the owner and mode that it had."""
    there = os.stat(path) if os.path.exists(path) else None
    _replace(path, text, stat.S_IMODE(there.st_mode) if there else 0o644)
    if there:
        os.chown(path, there.st_uid, there.st_gid)


def _haproxy(config: str, unit: str, port: int) -> dict[str, Any]:
    return {
        "config": _read(config) if os.path.exists(config) else None,
        "unit": _read(unit) if os.path.exists(unit) else None,
        "holder": _holder(port, "haproxy"),
        "stale": _stale(
            config,
            lambda said: said.startswith("/usr/sbin/haproxy")
            and config in said.split("\0"),
        ),
    }


def _system() -> str:
    """Return the names of this system and of those that it is made from."""
    said = platform.freedesktop_os_release()
    return f"{said.get('ID', '')} {said.get('ID_LIKE', '')}".strip()


def _row(path: str) -> list[Any]:
    """Return [owner, group, mode] of a folder, [] where there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return []
    if not stat.S_ISDIR(found.st_mode):
        return []
    names = []
    for number, lookup in ((found.st_uid, pwd.getpwuid), (found.st_gid, grp.getgrgid)):
        try:
            names.append(lookup(number)[0])
        except KeyError:
            names.append(str(number))
    return [*names, stat.S_IMODE(found.st_mode)]


def _authorized(home: str, key: str) -> bool:
    """True when sshd lets the key in; it passes over files that others may write."""
    path = os.path.join(home, ".ssh", "authorized_keys")
    try:
        modes = [os.stat(place).st_mode for place in (os.path.dirname(path), path)]
    except OSError:
        return False
    return not any(mode & 0o022 for mode in modes) and _names(
        _read(path).splitlines(), key
    )


def _names(lines: list[str], key: str) -> bool:
    blob = key.split()[1]
    return any(
        blob in line.split() for line in lines if not line.lstrip().startswith("#")
    )


def _nginx(name: str, port: int) -> dict[str, Any]:
    available, enabled, default = _places(name)
    folder = os.path.dirname(enabled)
    try:
        found = sorted(os.listdir(folder))
    except OSError:
        found = []
    wants = re.compile(
        rf"(?:^|[;{{])\s*listen\s+(?:\S*:)?{port}(?![0-9.])", re.MULTILINE
    )
    return {
        "site": _read(available) if os.path.exists(available) else None,
        "linked": os.path.islink(enabled) and os.path.exists(enabled),
        "default": os.path.islink(default),
        "others": [
            other
            for other in found
            if other not in (name, "default")
            and wants.search(_read(os.path.join(folder, other)))
        ],
        "holder": _holder(port, "nginx"),
        "stale": _stale(available, _works),
    }


def _places(name: str) -> tuple[str, str, str]:
    return (
        SITES.format("available", name),
        SITES.format("enabled", name),
        SITES.format("enabled", "default"),
    )


def _works(said: str) -> bool:
    """True for the command line of a worker of nginx that takes new connections."""
    return said.startswith("nginx: worker process") and "shutting down" not in said


def _stale(path: str, works: Callable[[str], bool]) -> bool:
    """True when all that works by a file is older than it."""
    try:
        written = os.stat(path).st_mtime
    except OSError:
        return False
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = os.sysconf("SC_CLK_TCK")
    begun = [
        booted + int(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]) / ticks
        for pid in _pids()
        if works(_read(f"/proc/{pid}/cmdline"))
    ]
    return bool(begun) and max(begun) < written


def _holder(port: int, ours: str) -> str:
    """Return the program that listens on a port of this host, "" for ours or none."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in _read(f"/proc/net/{table}").splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    names = {
        _read(f"/proc/{pid}/comm").strip()
        for pid in _pids()
        if inodes and inodes & _opened(pid)
    }
    if inodes and not names:
        return "a program that is not seen from here"
    return ", ".join(sorted(names - {ours}))


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _opened(pid: str) -> set[str]:
    """Return what a process has open; a descriptor that just went is passed over."""
    found = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for name in names:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _replace(path: str, text: str, mode: int) -> None:
    """Write a file whole or not at all."""
    scratch = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(scratch, flags, mode), "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


ACTS = (observe, authorize, folders, site, restore, files, put_back)
VERBS = {act.__name__: act for act in ACTS}

if __name__ == "__main__":
    print(json.dumps(VERBS[sys.argv[1]](json.loads(sys.argv[2]))))
