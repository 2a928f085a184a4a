"""A value that must not be seen: tokens, device secrets, enrollment keys."""

from __future__ import annotations

import re

TOKEN = re.compile(r"[!-~]{1,1024}")
"""What can be sent in a header."""
UNFIT = "does not hold a secret: one line of printable ASCII without spaces"


class Secret:
    """Holds a string whose repr, str, format and JSON show nothing. Only reveal() gives it out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def fits_header(self) -> bool:
        """Whether a header can carry it. Clients show what they cannot send in their errors: ask first."""
        return self._value.isascii() and self._value.isprintable()

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
