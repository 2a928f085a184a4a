"""What is kept as JSON in the registry's documents: how it is written, and read from what somebody sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TypeVar

from agent.config.records import VALIDATION, by_field, converter
from center.errors import RefusedError

T = TypeVar("T")
_CONVERTER = converter()


class FieldsError(RefusedError):
    """A record that cannot be: why not, by field (`settings.offset.Temperature`)."""

    def __init__(self, each: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {why}" for name, why in each.items()))
        self.each = each


def structured(given: object, record: type[T], needed: str) -> T:
    """The record that this JSON is. FieldsError, with all that is wrong; `needed`, where it is no table at all."""
    try:
        return _CONVERTER.structure(given, record)
    except VALIDATION as error:
        raise FieldsError(by_field(error)) from None
    except ValueError:
        raise FieldsError({record.__name__.lower(): needed}) from None


def written(value: object) -> str:
    """As it is kept; records by their fields."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=asdict)
