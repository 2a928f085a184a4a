"""Small records in files: JSON with a checksum of itself, so that one flipped bit is seen and not believed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

_CRC = "crc32"


def seal(record: Mapping[str, Any]) -> bytes:
    """The record, whose keys are text, as a file holds it."""
    return json.dumps({**record, _CRC: _crc(record)}, separators=(",", ":")).encode()


def unseal(data: bytes, *, unsealed: int = -1) -> dict[str, Any]:
    """The record. Raises ValueError for anything but what seal() made, or a record without a checksum whose `version`
    (0 where it has none) is `unsealed`: as files were before there were checksums.
    """
    try:
        record = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(record, dict):
        raise ValueError("no record")  # noqa: TRY004 - as damaged as the others
    crc = record.pop(_CRC, None)
    if crc != _crc(record) and (crc is not None or record.get("version", 0) != unsealed):
        raise ValueError("wrong checksum")
    return record


def _crc(record: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(record, sort_keys=True, separators=(',', ':')).encode()):08x}"
