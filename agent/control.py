"""The running agent's door: a Unix socket in the state folder that answers with a snapshot, without wearing flash.

Whoever may enter the folder (0700) may ask. A stale socket of a killed agent is recognised by the refused connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NAME = "control.sock"
_TIMEOUT_S = 5


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
    """Answers each connection with one JSON object from `snapshot`."""

    def __init__(self, folder: Path, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._folder, self._snapshot = folder, snapshot
        (folder / NAME).unlink(missing_ok=True)  # the folder's lock says that no other agent runs
        self._socket = socket.socket(socket.AF_UNIX)
        with _short_path(folder) as path:
            self._socket.bind(path)
        (folder / NAME).chmod(0o600)
        self._socket.listen(8)
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_TIMEOUT_S)
                connection.sendall(json.dumps(self._snapshot(), default=str).encode())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        (self._folder / NAME).unlink(missing_ok=True)


def ask(folder: Path) -> dict[str, Any] | None:
    """The running agent's snapshot; None if none runs on this folder. PermissionError if we may not know."""
    chunks = []
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short_path(folder) as path:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(path)
            while chunk := connection.recv(65536):
                chunks.append(chunk)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    answer: dict[str, Any] = json.loads(b"".join(chunks))
    return answer
