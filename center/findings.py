"""What `iot-center setup` and `check` say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the check. `remedy` is empty where it is well."""

    text: str
    remedy: str = ""
