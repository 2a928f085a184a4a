"""Driver options: from a [[sensor]] table or from key=value texts to a driver's frozen dataclass."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from difflib import get_close_matches
from math import isfinite
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


class OptionError(ValueError):
    """A driver or option that cannot be; the message says what is allowed. `key` names the option, if it is one; `each`
    are the errors, where there are several.
    """

    def __init__(self, message: str, key: str | None = None, each: Sequence[OptionError] = ()) -> None:
        super().__init__(message)
        self.key, self.each = key, each or (self,)


def option(
    default: Any = MISSING,
    *,
    factory: Callable[[], Any] | Any = MISSING,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
    keys: tuple[str, ...] = (),
    parse: Callable[[Any], Any] | None = None,
    unit: str = "",
) -> Any:
    """A dataclass field that knows what is allowed: limits (inclusive), choices, the keys of a table, its unit.

    An option named like a word of Python has an underscore behind its field's name: class_ is written class.
    `parse` turns what was written into a value before anything else is checked; it may raise ValueError.
    """
    facts = {"low": low, "high": high, "choices": choices, "keys": keys, "parse": parse, "unit": unit}
    if factory is not MISSING:
        return field(default_factory=factory, metadata=facts)
    return field(default=default, metadata=facts)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where nothing is near."""
    near = get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _allowed(spec: Mapping[str, Any], kinds: tuple[Any, ...]) -> str:
    """What may stand there, in words."""
    unit = f" {spec['unit']}" if spec.get("unit") else ""
    if spec.get("choices"):
        return f"allowed are {', '.join(map(str, spec['choices']))}{unit}"
    words = " or ".join(_KINDS[k] if k in _KINDS else repr(k) for k in kinds if k is not type(None))
    low, high = spec.get("low"), spec.get("high")
    if low is not None and high is not None:
        return f"allowed is {words} from {low:g} to {high:g}{unit}"
    if low is not None:
        return f"allowed is {words} of at least {low:g}{unit}"
    return f"allowed is {words}{unit}"


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types (or literal values) that a type hint allows."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for part in get_args(hint) for kind in _kinds(part))
    if get_origin(hint) is Literal:
        return get_args(hint)
    return (hint,)


def _coerced(value: Any, kinds: tuple[Any, ...]) -> Any:
    """The value as one of the kinds. Raises ValueError."""
    for kind in kinds:
        if kind is bool:
            if isinstance(value, bool):
                return value
            if isinstance(value, str) and value.lower() in _TRUTH:
                return _TRUTH[value.lower()]
        elif kind is type(None):
            if value is None:
                return None
        elif kind in (int, float):
            if isinstance(value, bool):
                continue
            if isinstance(value, kind) or (kind is float and isinstance(value, int)):
                return kind(value)
            if isinstance(value, str):
                try:
                    return int(value, 0) if kind is int else float(value)
                except ValueError:
                    continue
        elif (kind is str and isinstance(value, str)) or (type(kind) is type(value) and kind == value):
            return value
    raise ValueError


def _checked(key: str, value: Any, spec: Mapping[str, Any], kinds: tuple[Any, ...]) -> Any:
    """One value, structured and within its limits. Raises OptionError."""
    try:
        parse = spec.get("parse")
        value = _coerced(parse(value) if parse else value, kinds)
    except (ValueError, TypeError, OverflowError) as error:
        why = str(error) if error.args else _allowed(spec, kinds)
        raise OptionError(f"option {key!r} is {value!r}: {why}", key) from None
    low, high, choices = spec.get("low"), spec.get("high"), spec.get("choices")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    wrong = choices and value not in choices
    outside = number and (
        (isinstance(value, float) and not isfinite(value))
        or (low is not None and value < low)
        or (high is not None and value > high)
    )
    if wrong or outside:
        raise OptionError(f"option {key!r} is {value!r}: {_allowed(spec, kinds)}", key)
    return value


def _table(key: str, value: Any, spec: Mapping[str, Any], hint: Any) -> Mapping[str, Any]:
    """A table of values, each checked; a single number stands for all of its keys."""
    kinds = _kinds(get_args(hint)[1])
    keys: tuple[str, ...] = spec.get("keys") or ()
    if not isinstance(value, Mapping):
        if not keys or not set(kinds) <= {int, float}:
            like = f", like {{ {keys[0]} = … }}" if keys else ""
            raise OptionError(f"option {key!r} is {value!r}: allowed is a table{like}", key)
        value = dict.fromkeys(keys, value)
    for name in value:
        if keys and name not in keys:
            raise OptionError(
                f"option {key!r} has no {name!r}; allowed are {', '.join(keys)}{nearest(name, keys)}", key
            )
    return {name: _checked(f"{key}.{name}", part, spec, kinds) for name, part in value.items()}


def _key(item: Field[Any]) -> str:
    """How the option is written."""
    return item.name.removesuffix("_")


def _structured(item: Field[Any], value: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _table(_key(item), value, item.metadata, hint)
    return _checked(_key(item), value, item.metadata, _kinds(hint))


def _nested(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys, as the command line writes them, as tables: offset.Temperature=1 → {"offset": {…}}."""
    nested: dict[str, Any] = {}
    for key, value in mapping.items():
        head, dot, tail = key.partition(".")
        if not dot and key not in nested:
            nested[key] = value
        elif dot and isinstance(inner := nested.setdefault(head, {}), dict):
            inner[tail] = value
        else:
            raise OptionError(f"option {head!r} is given as a value and as a table", head)
    return nested


def structure(kind: type[Any], mapping: Mapping[str, Any]) -> Any:
    """An instance of the options dataclass `kind`. Raises OptionError naming key, value and what is allowed of each."""
    known = {_key(item): item for item in fields(kind)}
    hints = get_type_hints(kind)
    values, wrong = {}, []
    for key, value in _nested(mapping).items():
        if key not in known:
            listed = f"options are {', '.join(known)}" if known else "it has no options"
            wrong.append(OptionError(f"no option {key!r}: {listed}{nearest(key, known)}", key))
            continue
        try:
            values[known[key].name] = _structured(known[key], value, hints[known[key].name])
        except OptionError as error:
            wrong.append(error)
    if wrong:
        raise wrong[0] if len(wrong) == 1 else OptionError("; ".join(map(str, wrong)), wrong[0].key, wrong)
    return kind(**values)


def validate(options: Any) -> None:
    """Check an instance of an options dataclass against its own fields. Raises OptionError."""
    hints = get_type_hints(type(options))
    for item in fields(options):
        _structured(item, getattr(options, item.name), hints[item.name])
