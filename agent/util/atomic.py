"""Files that are whole or not there: written beside, synced, renamed, and the folder synced."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import shutil
import stat
from pathlib import Path

log = logging.getLogger(__name__)
_counter = itertools.count()


def write_atomic(path: Path, data: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Puts `data` in the place of `path`, on the disk when this returns. Raises OSError, the old file untouched.

    After a crash at any point `path` holds the old or the new content; what was written beside it is removed by
    `sweep_temporaries`. The new file has `mode` from its first byte, and `owner` (user and group) before it is there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_counter)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(handle, *owner)
            os.fchmod(handle, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)  # noqa: PTH105 - the tests of power cuts stop at each of these calls
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_regular(path: Path, limit: int = 1_000_000) -> bytes:
    """What is in a file of the state folder. OSError also where something else stands in its place: a link leads to
    what is not ours, a pipe could be read for ever, and a file of a stranger's was planted.
    """
    if path.is_symlink():  # in words; O_NOFOLLOW keeps to it
        raise OSError(errno.ELOOP, "a link, not a file", str(path))
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(handle, "rb") as file:  # noqa: PTH123 - a descriptor
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        if is_strangers(found, path.parent):
            raise OSError(errno.EPERM, f"a file of user {found.st_uid}", str(path))
        return file.read(limit)


def is_strangers(found: os.stat_result, folder: Path) -> bool:
    """Whether somebody put it into the folder who is neither this user, nor root, nor the folder's owner."""
    return found.st_uid not in (os.geteuid(), 0, folder.stat().st_uid)


def is_there(path: Path) -> bool:
    """Whether there is something. OSError where nobody may look, which Path.exists() says up to Python 3.13 only."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return True


def set_aside(path: Path, why: object) -> None:
    """Moves what is damaged out of the way, to `NAME.damaged` beside it, in the place of what lay there before, and
    says so. Raises OSError.
    """
    aside = path.with_name(f"{path.name}.damaged")
    if aside.is_dir() or path.is_dir():  # a file never takes the place of a folder, nor a folder that of a file
        remove(aside)
    path.replace(aside)
    log.warning("%s is damaged (%s): set aside as %s", path, why, aside.name)


def remove(path: Path) -> None:
    """A file, a link or a whole folder; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes names in `folder` durable. A file system that cannot sync folders is left alone."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def sweep_temporaries(path: Path) -> None:
    """Removes what a crash left beside `path`. Only for files that one process at a time writes."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)
