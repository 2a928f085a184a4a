"""The state folder: its owner's alone, and refused where others could put files that the agent takes for its own."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

from agent.util.errors import AgentError

log = logging.getLogger(__name__)


class DiskFull(AgentError):  # noqa: N818 - says what is the case
    """There is no room for the state folder."""


def prepare(folder: Path) -> None:
    """The state folder, which nobody else can write to. Raises AgentError saying what to do.

    One of ours that others can write to becomes 0700; a shared one (sticky, as /tmp is) and somebody else's is refused.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise AgentError(f"the state folder {folder} is a file: name a folder with --state-dir")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        if found.st_mode & 0o022 and found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
            folder.chmod(0o700)
            log.warning("others could write to the state folder %s: it is 0700 now", folder)
            return
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else AgentError
        raise kind(
            f"the state folder {folder} cannot be made ({error.strerror}): name another with --state-dir"
        ) from error
    if found.st_mode & 0o022:
        raise AgentError(
            f"others can write to the state folder {folder} ({stat.filemode(found.st_mode)}, user {found.st_uid}), and "
            "so put files there that the agent takes for its own: name a folder of its own with --state-dir, or give "
            f"this one to user {os.geteuid()} with mode 700"
        )
