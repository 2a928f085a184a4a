"""Every error of the center that a caller can act on."""

from __future__ import annotations


class SettingsError(Exception):
    """The settings cannot be used. One line for each mistake, naming file, key, value and what would be right."""


class StoreError(Exception):
    """The store could not do it: unreachable, disk full, no permission. The message says what to do.

    `known`: whether the same fault was met before and not mended since (center.faults); None while nobody looked.
    """

    known: bool | None = None


class ConflictError(StoreError):
    """Registered already, and the caller is not its owner; or another registration of the same moment won (`raced`)."""

    def __init__(self, message: str, *, raced: bool = False) -> None:
        super().__init__(message)
        self.raced = raced


class EnrollmentError(StoreError):
    """The enrollment key is missing, unknown, revoked, expired or used up."""


class RefusedError(ValueError):
    """A query or point that the store does not take; the message says why."""


class NotSupportedError(Exception):
    """Not something this store can do (raw Flux on the embedded one)."""
