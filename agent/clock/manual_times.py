"""Times of boots that a person gave: `iot-agent buffer date` leaves them here for whoever runs the agent.

A file of its own, `clock.byhand.json`, so that the running agent picks it up within a minute and a stopped one at its
start. Entries stay until the points have long been dated: dating twice does no harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from agent.util.atomic import read_regular, set_aside, write_atomic
from agent.util.checked import seal, unseal

FILE = "clock.byhand.json"


def read(folder: Path) -> dict[str, int]:
    """Unix time, in ns, when the boot clock read 0, by boot id. What is not readable is set aside."""
    path = folder / FILE
    try:
        record = unseal(read_regular(path), unsealed=0)
        starts = record["starts"] if "version" in record else record  # 0.1.0 wrote the bare times
        return {str(name): start for name, start in starts.items() if type(start) is int and abs(start) < 2**63}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        with contextlib.suppress(OSError):
            set_aside(path, f"{error}; give the times again with iot-agent buffer date")
        return {}


def leave(folder: Path, starts: Mapping[str, int]) -> None:
    """Add times of boots. Raises OSError."""
    write_atomic(folder / FILE, seal({"version": 2, "starts": {**read(folder), **starts}}))


def remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / FILE).unlink(missing_ok=True)
