"""Reading a file that holds a secret: one of the state folder, or one that a person made. What others could read, or
could have put there, is not taken.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from agent.util.atomic import is_strangers
from agent.util.errors import AgentError
from agent.util.secret import TOKEN, UNFIT, Secret

MAX_FILE = 65_536  # bytes


class CredentialsError(AgentError):
    """A secret cannot be read or kept. The text names the file and what to do, never the content."""


class NoSecretFileError(CredentialsError):
    """What is there was never written as a secret."""


def unreadable(path: Path, error: OSError) -> CredentialsError:
    return CredentialsError(f"{path} cannot be read ({error.strerror}): who owns it? See ls -l {path}")


def read_private(path: Path) -> bytes | None:
    """The content of a secret's file of the state folder, None if there is none.

    CredentialsError when others can read it or this user cannot; NoSecretFileError for what was never one of ours: a
    link, what is not a regular file, is a stranger's or too large.
    """
    return _read_secret(path, 0o077, "600", own=True)


def _read_secret(path: Path, forbidden: int, mode: str, *, own: bool = False) -> bytes | None:
    """As read_private. `forbidden` are mode bits. Unless it is `own`, a link is followed, and anybody's file taken."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if own else 0))
    except (FileNotFoundError, ValueError):  # the latter: no file has such a name
        return None
    except OSError as error:
        if own and error.errno == errno.ELOOP:
            raise NoSecretFileError(f"{path} is a link, not a file") from None
        raise unreadable(path, error) from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise NoSecretFileError(f"{path} is not a file")
        if own and is_strangers(found, path.parent):
            raise NoSecretFileError(f"{path} is a file of user {found.st_uid}")
        if found.st_mode & forbidden:
            raise CredentialsError(f"{path} can be read by others: chmod {mode} {path}, and consider a new secret")
        data = os.read(handle, MAX_FILE + 1)
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read ({error.strerror})") from None
    finally:
        os.close(handle)
    if len(data) > MAX_FILE:
        raise NoSecretFileError(f"{path} is larger than {MAX_FILE} bytes: is it the right file?")
    return data


def read_secret_file(named: str | None, credential: str, environ: Mapping[str, str] = os.environ) -> Secret | None:
    """A secret that a person put in a file: the named one, else systemd's `$CREDENTIALS_DIRECTORY/<credential>`.

    None where neither is there to be asked. Its group may read it (root:iot-agent 0640), others may not.
    CredentialsError for a named file that is not there, is empty, or holds what cannot go into a header.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if named is None and not folder:
        return None
    path = Path(named) if named is not None else Path(folder or "") / credential
    data = _read_secret(path, 0o007, "o-rwx")
    if data is None and named is not None:
        raise CredentialsError(f"{path} is not there: put the secret in it, chmod 640, readable for the agent")
    if data is None:
        return None
    text = data.decode("ascii", "replace").strip()
    if not TOKEN.fullmatch(text):
        raise CredentialsError(f"{path} {UNFIT}")
    return Secret(text)
