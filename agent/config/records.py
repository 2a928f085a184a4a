"""Tables of a TOML file → frozen records, for the agent and the center: all problems at once, each named with its key,
its value and what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_origin

from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from agent.config.units import Bytes, Seconds, parse_duration, parse_size

VALIDATION = (ClassValidationError, IterableValidationError)
"""What a converter raises; problems() and by_field() say it in words."""


def converter() -> Converter:
    """For records of texts, numbers, durations, sizes and choices. Attributes with metadata are nobody's to give."""
    made = Converter(forbid_extra_keys=True, detailed_validation=True)

    def record(cls: Any) -> Callable[[Any, Any], Any]:
        ours = {f.name: override(omit=True) for f in fields(cls) if f.metadata}
        inner: Callable[[Any, Any], Any] = make_dict_structure_fn(cls, made, **ours)  # type: ignore[arg-type]

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise ValueError(f"{value!r}: must be a table")  # noqa: TRY004
            return inner(value, cls)

        return structure

    made.register_structure_hook(str, _strict(str, "text in quotes", str))
    made.register_structure_hook(int, _strict(int, "a whole number", int))
    made.register_structure_hook(bool, _strict(bool, "true or false", bool))
    made.register_structure_hook(float, _strict(float, "a number", int, float))
    made.register_structure_hook(Seconds, _with_unit(parse_duration))
    made.register_structure_hook(Bytes, _with_unit(parse_size))
    made.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _choice)  # type: ignore[comparison-overlap]
    made.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _texts)
    made.register_structure_hook_factory(is_dataclass, record)
    return made


def problems(error: Exception) -> Iterator[str]:
    """The lines of a validation error, depth first."""
    for path, sign, why in _walk(error, ()):
        yield f"{'.'.join(path).replace('.[', '[')}{sign}{why}"


def by_field(error: Exception) -> dict[str, str]:
    """As problems(): what is wrong, by the field's name (`settings.offset.Temperature`). Both are cut where a stranger
    sent very much.
    """
    return {".".join(step.strip("[]") for step in path)[:150]: why[:200] for path, _, why in _walk(error, ())}


def _walk(error: Exception, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Where, the sign to be put between, and what is wrong there."""
    if isinstance(error, VALIDATION):
        known, rest = error.group_exceptions()
        for sub, note in known:
            step = f"[{note.index}]" if isinstance(note, IterableValidationNote) else str(note.name)
            yield from _walk(sub, (*path, step))
        for sub in rest:
            yield from _walk(sub, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        for key in sorted(error.extra_fields):
            names = [f.name for f in fields(error.cl) if not f.metadata]
            yield (*path, key), ": ", f"no such {'key' if path else 'section'}{nearest(key, names)}"
    elif isinstance(error, KeyError):
        yield path, ": ", "missing; it has no default"
    elif isinstance(error, AttributeError):  # cattrs asks for the items of what is no table
        yield path, ": ", "must be a table, with a value for each name in it"
    elif isinstance(error, OverflowError):
        yield path, ": ", "must be a smaller number"
    else:
        yield path, " = ", str(error)


def nearest(key: str, known: Mapping[str, Any] | list[str]) -> str:
    near = get_close_matches(key, list(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _strict(into: Callable[[Any], Any], what: str, *kinds: type) -> Callable[[Any, Any], Any]:
    """TOML's true and false are no numbers, though Python's are."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) not in kinds:
            raise ValueError(f"{value!r}: must be {what}")
        return into(value)

    return structure


def _with_unit(parse_unit: Callable[[object], Any]) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        try:
            return parse_unit(value)
        except ValueError as error:
            raise ValueError(f"{value!r}: must be {error}") from None

    return structure


def _choice(value: Any, literal: Any) -> Any:
    if value not in literal.__args__:
        raise ValueError(f"{value!r}: must be one of {', '.join(repr(a) for a in literal.__args__)}")
    return value


def _texts(value: Any, _: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f'{value!r}: must be a list of texts, like ["DewPoint"]')
    return tuple(value)
