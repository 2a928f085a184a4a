"""The device's id: named by the settings (IOT_DEVICE_ID is one of them), else derived once from the board and kept."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from agent.config.limits import check_id
from agent.util.atomic import read_regular, set_aside, write_atomic

log = logging.getLogger(__name__)

ID_FILE = "device.id"
BOARD_FILES = (
    Path("/sys/firmware/devicetree/base/serial-number"),
    Path("/proc/device-tree/serial-number"),
    Path("/etc/machine-id"),
)
_VOLATILE = ("tmpfs", "ramfs", "overlay", "overlayfs", "aufs")
MOUNTS = Path("/proc/self/mountinfo")


def device_id(
    configured: str | None,
    folder: Path,
    *,
    board_files: Sequence[Path] = BOARD_FILES,
) -> str:
    """The device's id: `configured`, else the kept one, else derived now and kept in `folder`.

    ValueError for a named id that is not one. A folder that cannot be written is a warning: what is derived from the
    board comes out the same again.
    """
    if configured is not None:
        return check_id(configured)
    path = folder / ID_FILE
    try:
        return check_id(read_regular(path, 1000).decode("ascii").strip())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("%s is not usable (%s): the id is derived again", path, error)
        with contextlib.suppress(OSError):
            if path.is_dir():  # in whose place no file can be put
                set_aside(path, error)
    derived = derive(board_files)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, f"{derived}\n".encode())
    except OSError as error:
        log.warning("the device id %s could not be kept in %s: %s", derived, path, error)
    return derived


def derive(board_files: Sequence[Path] = BOARD_FILES) -> str:
    """`device-` and 12 hex digits from the board's serial or the machine-id, hashed; random where there is neither.

    The raw number never leaves: a machine-id is confidential (machine-id(5)), a serial can belong to other services.
    """
    for path in board_files:
        try:
            raw = path.read_bytes().strip(b"\0 \t\r\n")
        except OSError:
            continue
        if raw.strip(b"0") and raw != b"uninitialized":
            return "device-" + hashlib.sha256(b"iot-agent device id\0" + raw).hexdigest()[:12]
    return f"device-{secrets.token_hex(6)}"


def state_folder_warning(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """What to say when `folder` does not outlive a restart (tmpfs, overlay); None when it does or nobody knows.

    The device secret would be lost with it, and the center would not know the board again. Source: proc(5), mountinfo.
    """
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
        device = folder.stat().st_dev
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = (line.partition(" - ")[2].split(" ")[0] for line in lines if number in line.split(" ")[2:3])
    kind = next(kinds, "")
    if kind not in _VOLATILE:
        return None
    return (
        f"{folder} is on a {kind}, which a restart may empty: the stored points, the token and the device secret would "
        "be lost, and the center would not know this board again. Put it on a disk or a volume (overlayroot: recurse=0)"
    )
