"""What a service tells systemd (sd_notify(3)): ready, reloading, stopping, its state in a line, that it is alive."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


def notify(*assignments: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send `READY=1`, `STATUS=…`, `WATCHDOG=1` and the like; False where no service manager listens."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.connect("\0" + address[1:] if address[0] == "@" else address)
        sender.sendall("\n".join(assignments).encode())
        return True
    return False


def reloading(*, environ: Mapping[str, str] = os.environ) -> bool:
    """Say that a reload begins (Type=notify-reload wants the monotonic time with it)."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", environ=environ)


def watchdog_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds within which `WATCHDOG=1` must be sent, or None without a watchdog for this process."""
    pid = environ.get("WATCHDOG_PID")
    if pid and pid != str(os.getpid()):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 1_000_000 if usec.isdecimal() and int(usec) else None
