"""What the commands iot-agent and iot-center start.

agent, drivers and center are names that other distributions use as well, and pip lets one overwrite the other's files
without a word. Where a command fails because of that, this says which package it was.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("agent", "drivers", "center")
_MEND = "pip install --force-reinstall --no-deps iot-edge-agent, best into an environment of its own"


def agent() -> None:
    """`iot-agent`."""
    _start("agent.cli")


def center() -> None:
    """`iot-center`."""
    _start("center.cli")


def _start(module: str) -> None:
    try:
        import_module(module).main()
    except (ImportError, AttributeError, SyntaxError, TypeError):
        if words := disturbed():
            sys.exit(f"{Path(sys.argv[0]).name}: {words}")
        raise
    except OSError as error:  # a full disk behind stdout: what a command itself meets ends in its options
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what it still holds would be refused again at the end
        sys.exit(f"{Path(sys.argv[0]).name}: {error.strerror or error}")
    except KeyboardInterrupt:  # while it was still being imported: later ones are click's
        sys.exit(130)


def disturbed() -> str | None:
    """Which other package stands in the place of one of ours, and what to do; None where all are ours."""
    from importlib.metadata import packages_distributions, version  # noqa: PLC0415 - only where something is wrong

    owners = packages_distributions()
    for name in PACKAGES:
        for other in owners.get(name, ()):
            if other.replace("_", "-").lower() != "iot-edge-agent":
                return (
                    f"the package {other} {version(other)} put a package '{name}' of its own in the place of "
                    f"iot-edge-agent's: pip uninstall {other}, then {_MEND}"
                )
        found = find_spec(name)
        folder = Path(found.origin).parent if found and found.origin else None
        if folder is None or folder.parent != Path(__file__).parent:
            there = folder or "not there"
            return f"'{name}' is not iot-edge-agent's but {there}: remove that (is PYTHONPATH set?) or {_MEND}"
    return None
