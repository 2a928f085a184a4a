"""Files that people write with an editor, as text."""

from __future__ import annotations

from pathlib import Path

_SAVE = "save it as UTF-8 (in Notepad: Save as, Encoding: UTF-8)"


def decoded(data: bytes) -> str:
    """The text of UTF-8, without the byte order mark that Windows' Notepad begins it with.

    ValueError says what else it is, and nothing of what is in it.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:2]:
        raise ValueError(f"it is UTF-16: {_SAVE}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8: {_SAVE}") from None


def read_text(path: Path) -> str:
    """The text of a file. ValueError says in words why it cannot be read."""
    try:
        return decoded(path.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
