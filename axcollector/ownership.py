"""Whether others on this machine could change what lies in a directory of ours: who owns it, and who may write it.

Whoever may write a directory can plant, replace and remove what lies in it, whatever the modes of the files are; and
whoever may write one above it can put another in its place. So those who could are to be root and ourselves. Access
control lists need no look of their own: where one lets somebody else write, the group's bits of the mode say so.

Of a directory above ours the owner is not asked for: it is whoever set the place up. And its group may write it where
nobody else is in that group, as many systems give each user one: a directory made by hand there should do.
"""

import errno
import grp
import os
import pwd
import shlex
import stat

from twisted.application.service import Service

from axcollector.core.errors import UnsafeDirectory

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_private(path: str, *, may_be_link: bool = True) -> None:
    """See that a directory of ours, which is there, is ours alone to change.

    Args:
        path: The directory.
        may_be_link: Whether it may be a symbolic link to one.

    Raises:
        UnsafeDirectory: It is not; the message says what to do.
        OSError: That cannot be told.
    """
    facts = os.stat(path) if may_be_link else os.lstat(path)
    reason = objection(path, facts, os.geteuid())
    if reason is not None:
        raise UnsafeDirectory(reason)


def check_writable(path: str) -> None:
    """See that we could make something in a directory, or in the nearest one above it that is there.

    Raises:
        OSError: We could not.
    """
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def objection(path: str, facts: os.stat_result, uid: int) -> str | None:
    """What is wrong with a directory of the user `uid`, and what to do about it; None: nothing."""
    shown = shlex.quote(path)
    if stat.S_ISLNK(facts.st_mode):
        return (
            f"{path} is a symbolic link, which is not followed here: put the directory itself in its place"
            " (local_storage_path may be a link)"
        )
    if not stat.S_ISDIR(facts.st_mode):
        return f"{path} is no directory: move it away"
    if facts.st_uid not in {uid, 0}:
        return (
            f"{path} belongs to another user ({facts.st_uid}), who could change what lies there:"
            f" chown -R {uid} {shown}, or run as that user"
        )
    if facts.st_mode & _OTHERS_WRITE:
        mode = stat.S_IMODE(facts.st_mode)
        return (
            f"{path} can be written by others (its mode is {mode:04o}), who could change what lies there:"
            f" chmod go-w {shown}"
        )
    return None


def check_above(path: str) -> None:
    """See that others can put nothing else in a directory's place, be it there or not.

    Raises:
        UnsafeDirectory: They can; the message says what to do.
    """
    for parent in sorted(_on_the_way_to(path)):
        try:
            facts = os.stat(parent)
        except OSError:  # not there: we make it; or not ours to look at, so not ours to judge
            continue
        if _is_open(facts):
            raise UnsafeDirectory(
                f"{parent} can be written by others (its mode is {stat.S_IMODE(facts.st_mode):04o}), who could put"
                f" another directory in the place of {path}: chmod go-w {shlex.quote(parent)}, or choose another place"
            )


def _on_the_way_to(path: str) -> set[str]:
    """Every directory in which a name is looked up on the way to a path, through whatever links."""
    found, seen = set[str](), set[str]()
    waiting = [os.path.abspath(path), os.path.realpath(path)]
    while waiting:
        name = waiting.pop()
        directory = os.path.dirname(name)
        if name in seen or directory == name:
            continue
        seen.add(name)
        found.add(directory)
        waiting.append(directory)
        if os.path.islink(name):
            waiting.append(os.path.normpath(os.path.join(os.path.realpath(directory), os.readlink(name))))
    return found


def _is_open(facts: os.stat_result) -> bool:
    """Whether others can rename what lies in it; where the sticky bit is set, only the owners of both can."""
    if facts.st_mode & stat.S_ISVTX:
        return False
    by_group = bool(facts.st_mode & stat.S_IWGRP) and not is_group_of_one(facts.st_gid, os.geteuid())
    return by_group or bool(facts.st_mode & stat.S_IWOTH)


def is_group_of_one(gid: int, uid: int) -> bool:
    """Whether a group is root's, or the user's own and called so, with no other member."""
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return gid == 0
    is_own = group.gr_name == user.pw_name and user.pw_gid == gid
    return (is_own or gid == 0) and set(group.gr_mem) <= {user.pw_name, "root"}


class PrivateDirectory(Service):
    """Refuses to start where others could change what lies in a directory; one that is missing is nobody's."""

    def __init__(self, path: str) -> None:
        self._path = path

    def startService(self) -> None:
        """Look.

        Raises:
            UnsafeDirectory: Others could.
        """
        check_above(self._path)
        if os.path.exists(self._path):
            check_private(self._path)
        self.running = True
