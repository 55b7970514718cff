"""Be the power supply of one throw-away host: start its PID 1, end it on request.

Run by `tests.fleet.machines` as a program of its own with one JSON argument. The host
ends when this process does, however that happens, and also when the descriptor `watch`
reads end-of-file, that is, when the process that wanted the host is gone. Standard
library only, so that it starts in a few hundredths of a second.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_CGROUPS, NEW_NAMES = 0x0002_0000, 0x0200_0000, 0x0400_0000
NEW_IPC, NEW_PIDS, NEW_NET = 0x0800_0000, 0x2000_0000, 0x4000_0000
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x4_0000
DETACH = 2
DEATH_SIGNAL = 1
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library; OSError when it says no."""
    plain = [os.fsencode(a) if isinstance(a, str) else a for a in arguments]
    if getattr(LIBC, name)(*plain) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def mount(kind: str, place: str, options: str = "", source: str = "") -> None:
    """Mount a new file system of a kind, making its folder where it is missing."""
    os.makedirs(place, exist_ok=True)
    call("mount", source or kind, place, kind, 0, options or None)


def file_systems(root: str) -> None:
    """Give the host what a kernel and an initrd would have given it."""
    call("mount", "none", "/", None, RECURSIVE | PRIVATE, None)
    mount("proc", f"{root}/proc")
    mount("sysfs", f"{root}/sys")
    mount("cgroup2", f"{root}/sys/fs/cgroup")
    mount("tmpfs", f"{root}/dev", "mode=755")
    for name in DEVICES:
        open(f"{root}/dev/{name}", "x").close()
        call("mount", f"/dev/{name}", f"{root}/dev/{name}", None, BIND, None)
    for name, to in LINKS.items():
        os.symlink(to, f"{root}/dev/{name}")
    mount("devpts", f"{root}/dev/pts", "newinstance,ptmxmode=0666,mode=620,gid=5")
    mount("tmpfs", f"{root}/dev/shm", "mode=1777")
    mount("tmpfs", f"{root}/run", "mode=755")
    mount("tmpfs", f"{root}/tmp", "mode=1777")


def first_process(name: str, root: str, cgroup: str, alive: int) -> None:
    """Become the host's systemd; never returns. `alive` ends with our parent."""
    call("prctl", DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if select.select([alive], [], [], 0)[0]:
        raise RuntimeError("the power supply ended before it could be watched")
    # The cgroup that this process is in becomes the top of what the host sees.
    with open(f"{cgroup}/cgroup.procs", "w") as file:
        file.write("0")
    call("unshare", NEW_CGROUPS)
    socket.sethostname(name)
    file_systems(root)
    os.chdir(root)
    call("pivot_root", ".", ".")
    call("umount2", ".", DETACH)
    os.chdir("/")
    os.umask(0o022)
    environment = {"container": "test", "TERM": "linux", "PATH": os.defpath}
    init = "/lib/systemd/systemd"
    os.execve(init, [init, "--system", "--show-status=false"], environment)


def main() -> int:
    """Start the host, write its PID, wait for the end of either side."""
    wanted = json.loads(sys.argv[1])
    # Held open: the child may have made the host's files ours before we write here.
    folder = os.open(os.path.dirname(wanted["pid"]), os.O_RDONLY | os.O_DIRECTORY)
    network = os.open(f"/run/netns/{wanted['netns']}", os.O_RDONLY)
    call("setns", network, NEW_NET)
    os.close(network)
    call("unshare", NEW_MOUNTS | NEW_NAMES | NEW_IPC | NEW_PIDS)
    alive, ours = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            first_process(wanted["name"], wanted["root"], wanted["cgroup"], alive)
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    name = os.path.basename(wanted["pid"])
    scratch = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=folder)
    with os.fdopen(scratch, "w") as file:
        file.write(str(child))
    os.rename(f"{name}.new", name, src_dir_fd=folder, dst_dir_fd=folder)
    os.close(folder)
    ends = [os.pidfd_open(child)]
    ends += [] if wanted["watch"] is None else [wanted["watch"]]
    select.select(ends, [], [])
    os.kill(child, signal.SIGKILL)
    # It is reaped only after every process of the host is gone.
    os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
