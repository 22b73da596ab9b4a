# ruff: noqa: PTH102, PTH103, PTH112, PTH114, PTH115, PTH116, PTH118, PTH120, PTH123, PTH208, PTH211
# pathlib would take longer to import than all else that this program does to start.
"""Shows a program folders of this machine where it expects them, and becomes that program: a small program of its own.

Place in the flow: a replica of the process runtime that mounts volumes is started as `python -I -S view.py VIEW COMMAND
...`, with VIEW as JSON: `mounts`, a list of [folder, path], and `staging`, an empty folder that may be covered. It gets
a mount namespace of its own, in which each folder is bound to its path, read-only. Where the path is not there, its
folder is made; where that may not be, and in `/`, where nobody wants to find it afterwards, the nearest folder above
it is covered in this namespace by one that shows the same and the path besides. Without the right to all that it takes
a user namespace too, in which the program is who it was.

The standard library is all it may import, and little of that: it must start fast.
"""

import ctypes
import errno
import json
import os
import signal
import sys
from typing import NoReturn

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_MOVE, MS_REC = 1024, 2048, 4096, 8192, 16384
MS_UNBINDABLE, MS_SLAVE, MS_RELATIME = 1 << 17, 1 << 19, 1 << 21
KEPT = {8: MS_NOEXEC, 1024: MS_NOATIME, 2048: MS_NODIRATIME, 4096: MS_RELATIME}
"""What a mount may not lose in a user namespace that did not make it: flags of statvfs, and of mount."""
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
COULD_NOT_START = 127

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


class Covers:
    """The folders that are covered in this namespace by ones that show the same and more.

    Args:
        staging: An empty folder, on which they are put together.
    """

    def __init__(self, staging: str) -> None:
        self._staging = staging
        self._covered: list[str] = []

    def make_folder(self, path: str) -> None:
        """Have a folder at this path."""
        above = path
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        above = os.path.realpath(above)
        if above != "/" or above in self._covered:
            try:
                os.makedirs(path)
                return
            except OSError as error:
                if error.errno not in NOT_ALLOWED or above in self._covered:
                    raise
        self._cover(above)
        os.makedirs(path)

    def close(self) -> None:
        """Nothing else is made in them: it would be nowhere else, and gone with the program."""
        for folder in self._covered:
            mount("none", folder, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)

    def _cover(self, folder: str) -> None:
        mode = os.stat(folder).st_mode & 0o7777
        mount("tmpfs", self._staging, MS_NOSUID | MS_NODEV, kind="tmpfs", options=f"mode={mode:o}")
        # What it is to show may hold itself, and is then bound without it.
        mount("none", self._staging, MS_UNBINDABLE)
        for name in os.listdir(folder):
            try:
                show(os.path.join(folder, name), os.path.join(self._staging, name))
            except OSError as error:
                print(
                    f"{os.path.join(folder, name)} is not seen here: {os.strerror(error.errno or 0)}", file=sys.stderr
                )
        if folder == "/":
            os.chdir(self._staging)
            mount(".", "/", MS_MOVE)
            os.chroot(".")
        else:
            mount(self._staging, folder, MS_MOVE)
        self._covered.append(folder)


def show(original: str, path: str) -> None:
    """Have the same at another path."""
    if os.path.islink(original):
        os.symlink(os.readlink(original), path)
        return
    if os.path.isdir(original):
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT))
    mount(original, path, MS_BIND | MS_REC)


def show_volume(folder: str, path: str) -> None:
    """Have a folder at another path, where nobody may write."""
    mount(folder, path, MS_BIND | MS_REC)
    present = os.statvfs(path).f_flag
    kept = sum(flag for told, flag in KEPT.items() if present & told)
    mount("none", path, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


def mount(source: str, target: str, flags: int, *, kind: str | None = None, options: str | None = None) -> None:
    """The system call.

    Raises:
        OSError: It was refused.
    """
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _check(_libc.mount(texts[0], texts[1], texts[2], flags, texts[3]))


def leave_the_others() -> None:
    """Take a mount namespace: what is mounted here is seen here alone, what is mounted elsewhere comes and goes."""
    if _libc.unshare(CLONE_NEWNS):
        uid, gid = os.geteuid(), os.getegid()
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    mount("none", "/", MS_REC | MS_SLAVE)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(view: str, *command: str) -> None:
    """Become the command, with this view."""
    wanted, what, here = json.loads(view), "volumes", os.getcwd()  # noqa: PTH109 - as above
    try:
        leave_the_others()
        covers = Covers(wanted["staging"])
        for folder, path in sorted(wanted["mounts"], key=lambda mounted: str(mounted[1])):
            what = path
            if not os.path.isdir(path):
                covers.make_folder(path)
            show_volume(folder, path)
        covers.close()
        what = "the replica's folder"
        os.chdir(here)
    except OSError as error:
        fail(f"cannot mount {what}: {os.strerror(error.errno or 0)}")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would inherit that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the deployment's own command
    except OSError as error:
        fail(f"cannot start {command[0]!r}: {os.strerror(error.errno or 0)}")


def fail(why: str) -> NoReturn:
    """End with a line that says why."""
    print(why, file=sys.stderr)
    sys.exit(COULD_NOT_START)


if __name__ == "__main__":
    main(*sys.argv[1:])
