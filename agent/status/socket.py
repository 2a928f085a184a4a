"""The running agent's door: a Unix socket in the state folder that answers with a snapshot, without wearing flash.

Whoever may enter the folder (0700) may ask. A stale socket of a killed agent is recognised by the refused connection.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.util.atomic import set_aside
from agent.util.errors import AgentError

log = logging.getLogger(__name__)

NAME = "control.sock"
LOOK_S = 2.0
"""How often it looks whether the socket is still there."""
_TIMEOUT_S = 5


class NotOurs(AgentError):  # noqa: N818 - says what it is
    """The state folder may not be looked into by this user."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} belongs to another user: run this as that user, or with sudo")


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """A path of the socket under the 108 bytes that sockaddr_un holds, however deep the folder lies."""
    if len(os.fsencode(folder / NAME)) < 100 or not Path("/proc/self/fd").is_dir():
        yield str(folder / NAME)
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)


class ControlServer:
    """Answers each connection with one JSON object from `snapshot`.

    A folder where no socket can be made (full, read-only, gone) keeps no agent from running: it is tried again.
    """

    def __init__(self, folder: Path, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._folder, self._snapshot = folder, snapshot
        self._stop = threading.Event()
        self._said = False
        self._inode = 0
        self._socket = self._listen()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def _listen(self) -> socket.socket | None:
        """A new socket in the folder, whose lock says that no other agent runs; None where there can be none."""
        path, listener = self._folder / NAME, socket.socket(socket.AF_UNIX)
        try:
            if path.is_dir() and not path.is_symlink():
                set_aside(path, "it is a folder")
            path.unlink(missing_ok=True)
            with _short_path(self._folder) as short:
                listener.bind(short)
            path.chmod(0o600)
            listener.listen(8)
            listener.setblocking(False)
            self._inode = path.stat().st_ino
        except OSError as error:
            listener.close()
            if not self._said:
                log.warning(
                    "%s cannot be made (%s): until it can, `iot-agent status` sees no agent", path, error.strerror
                )
            self._said = True
            return None
        self._said = False
        return listener

    def _serve(self) -> None:
        while not self._stop.is_set():
            if self._socket is None:
                self._stop.wait(LOOK_S)
            elif not self._there():
                self._socket.close()
                self._socket = None
            else:
                self._answer(self._socket)
                continue
            if not self._stop.is_set():
                self._socket = self._listen()

    def _there(self) -> bool:
        try:
            return (self._folder / NAME).lstat().st_ino == self._inode
        except OSError:
            return False

    def _answer(self, listener: socket.socket) -> None:
        asked = select.poll()
        asked.register(listener, select.POLLIN)
        if not asked.poll(LOOK_S * 1000) or self._stop.is_set():
            return  # accept() with a timeout would spin for it once the socket is shut down
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # whoever asked is gone
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_TIMEOUT_S)
            try:
                answer = json.dumps(self._snapshot(), default=str).encode()
            except Exception:
                log.exception("the status could not be given")
                return
            connection.sendall(answer)

    def close(self) -> None:
        self._stop.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(1)
        if self._socket is not None:
            self._socket.close()
            with contextlib.suppress(OSError):
                (self._folder / NAME).unlink(missing_ok=True)


def ask(folder: Path) -> dict[str, Any] | None:
    """The running agent's snapshot; None if none runs on this folder. Raises AgentError, NotOurs if we may not know."""
    chunks = []
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short_path(folder) as path:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(path)
            while chunk := connection.recv(65536):
                chunks.append(chunk)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    except PermissionError:
        raise NotOurs(folder) from None
    except TimeoutError:
        raise AgentError("an agent runs, but gives no answer: is it stopped, or its machine very busy?") from None
    try:
        answer = json.loads(b"".join(chunks))
    except (ValueError, RecursionError):
        raise AgentError("an agent runs, but its answer broke off: its log says why") from None
    if not isinstance(answer, dict):
        raise AgentError(f"{folder / NAME} does not answer as an agent does: which program made it?")
    return answer
