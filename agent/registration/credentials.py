"""The token and the device secret at rest: each in a file of its own, 0600, replaced atomically; how the running agent
keeps them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config.settings import CenterSettings
from agent.registration.remote_config import RemoteConfiguration, accept
from agent.registration.secret_files import CredentialsError, NoSecretFileError, read_private, unreadable
from agent.util.atomic import is_there, set_aside, sweep_temporaries, write_atomic
from agent.util.secret import TOKEN, Secret

log = logging.getLogger(__name__)

CREDENTIALS_FILE = "credentials.json"
SECRET_FILE = "device.secret"  # noqa: S105 - the name of the file
LOCK_FILE = "registration.lock"
SOON_UNKNOWN = (
    "the device secret is gone. The token still works; before the next one can be had, an administrator of the center "
    "must remove {id} there"
)
HELD = "another process is registering this device just now: once it is done, this can be tried again"
_SECRET = re.compile(r"[A-Za-z0-9_-]{32,128}")


class HeldError(CredentialsError):
    """Another process is registering this device."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registration gave. `center` and `device_id` say whose it is; `remote` is what the center last sent."""

    center: str
    device_id: str
    dialect: str
    token: Secret
    url: str | None = None
    org: str | None = None
    bucket: str | None = None
    remote: RemoteConfiguration = field(default_factory=RemoteConfiguration)

    def encode(self) -> bytes:
        """The content of the file: the only place where the token is written out."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        fields |= {"version": 1, "token": self.token.reveal(), "remote": self.remote.said()}
        return json.dumps(fields, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Credentials:
        """Raises ValueError, without any of the content in it, when the file is not what encode() wrote."""
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            raise ValueError("it is not JSON") from None
        if not isinstance(fields, dict):
            raise ValueError("it is not a JSON object")  # noqa: TRY004 - one error for all that is damaged
        if not isinstance(fields.get("remote"), dict):
            raise ValueError("remote is not an object")  # noqa: TRY004 - as above
        texts: dict[str, Any] = {name: fields.get(name) for name in ("token", *_FIELDS)}
        for name, value in texts.items():
            if not isinstance(value, str) and not (value is None and name in _PLACES):
                raise ValueError(f"{name} is not a string")
        token = texts.pop("token")
        if not TOKEN.fullmatch(token):
            raise ValueError("the token is not one")
        return cls(token=Secret(token), remote=accept(fields["remote"], RemoteConfiguration())[0], **texts)


def stored_remote(settings: CenterSettings | None, device_id: str, folder: Path) -> RemoteConfiguration:
    """What this center last said to this device, before anything is asked or put right."""
    with contextlib.suppress(CredentialsError, ValueError):
        if settings and (data := read_private(folder / CREDENTIALS_FILE)):
            found = Credentials.decode(data)
            if (found.center, found.device_id) == (settings.url, device_id):
                return found.remote
    return RemoteConfiguration()


_PLACES = ("url", "org", "bucket")
_FIELDS = ("center", "device_id", "dialect", *_PLACES)


class CredentialStore:
    """The files of the state folder that hold secrets. Not locked by itself: see `exclusive`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / CREDENTIALS_FILE
        self.secret_path = folder / SECRET_FILE
        self._secret: Secret | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._looked = False
        self._unsaved = False

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Held while registering and storing, so that two processes never do it at once. HeldError if held.

        A disk that refuses even this file is no reason not to renew a token: then it is held by nobody.
        """
        handle = None
        try:
            with contextlib.suppress(OSError):
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                handle = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if handle is not None:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise HeldError(HELD) from None
                sweep_temporaries(self.path)
                sweep_temporaries(self.secret_path)
            yield
        finally:
            if handle is not None:
                os.close(handle)

    def device_secret(self) -> Secret:
        """The device secret, made and stored on the first call. A damaged one is set aside and a new one made.

        Raises CredentialsError when others can read it, or when a new one cannot be kept: registering with a secret
        that the next start has forgotten would lock the board out.
        """
        data = self._read(self.secret_path)
        if data is not None:
            text = data.decode("ascii", "replace").strip()
            if _SECRET.fullmatch(text):
                self._secret = Secret(text)
                return self._secret
            self._set_aside(self.secret_path, "it is not a device secret")
        secret = self._secret or Secret(secrets.token_urlsafe(32))
        self._write(self.secret_path, f"{secret.reveal()}\n".encode())
        log.info("%s device secret is in %s", "the lost" if self._secret else "a new", self.secret_path)
        self._secret = secret
        return secret

    def secret_is_lost(self) -> bool:
        """Whether there is no secret, in the file or in memory. One that was only wiped while running is put back.

        CredentialsError where nobody can tell: a folder that may not be searched.
        """
        try:
            if is_there(self.secret_path):
                return False
        except OSError as error:
            raise unreadable(self.secret_path, error) from None
        if self._secret is None:
            return True
        self.device_secret()
        return False

    def load(self) -> Credentials | None:
        """What was stored, None if nothing. A damaged file is set aside. CredentialsError when others can read it."""
        data = self._read(self.path)
        if data is None:
            return None
        try:
            return Credentials.decode(data)
        except ValueError as error:
            self._set_aside(self.path, str(error))
            return None

    def save(self, credentials: Credentials) -> None:
        """On the disk when this returns. CredentialsError when it cannot be kept."""
        self._write(self.path, credentials.encode())

    def look(self, ours: Credentials | None, center: str, device_id: str) -> Credentials | None:
        """The credentials in the file if it changed since the last look, saved or not; None if there is nothing new.

        Those of another device or center do not count. `ours` are those in use: they are written again when the file is
        gone, damaged, or could not be written before. Raises CredentialsError for files that others can read, at each
        look until that is mended.
        """
        lost = self.secret_is_lost()
        if self._looked and not self._unsaved and not self.changed_elsewhere():
            return None
        found = self.load()
        if found and (found.center, found.device_id) != (center, device_id):
            log.info("the stored token is of %s at %s: registering anew", found.device_id, found.center)
            found = None
        if found and lost:
            log.warning("%s", SOON_UNKNOWN.format(id=device_id))
        self._looked, self._stamp = True, self.stamp()
        if ours and found != ours and (self._unsaved or found is None):
            self.keep(ours)
            return None
        return found

    def keep(self, credentials: Credentials) -> None:
        """As save(); a disk that refuses is no reason not to use them, since the device secret renews them."""
        try:
            self.save(credentials)
        except CredentialsError as error:
            if not self._unsaved:
                log.warning("the token is used but not kept: %s", error)
            self._unsaved = True
            return
        self._unsaved = False
        self._stamp = self.stamp()

    def changed_elsewhere(self) -> bool:
        """Whether another process has stored something since the last look."""
        return self.stamp() != self._stamp

    def forget(self) -> None:
        """Removes the token; the device secret stays, by which the center knows the board."""
        self.path.unlink(missing_ok=True)

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes whenever the credentials' file is replaced, changed or gone (None)."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _write(self, path: Path, data: bytes) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, data)
        except OSError as error:
            raise CredentialsError(
                f"{path} cannot be written ({error.strerror}): is the disk full or read-only?"
            ) from None

    def _read(self, path: Path) -> bytes | None:
        """The content of a file. What was never one of ours, a pipe, a folder, a link to anywhere, is damaged too."""
        try:
            return read_private(path)
        except CredentialsError as error:
            if not isinstance(error, NoSecretFileError):
                raise
            self._set_aside(path, str(error))
            return None

    def _set_aside(self, path: Path, why: str) -> None:
        try:
            set_aside(path, why)
        except OSError as error:
            raise CredentialsError(f"{path} is damaged ({why}) and cannot be moved: {error.strerror}") from None
