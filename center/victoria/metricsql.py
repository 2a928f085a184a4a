"""MetricsQL: what is asked for, and what is answered as the rows that the arithmetic for all stores takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from center.stores.rows import Row
from center.stores.telemetry import ENVIRONMENT, HEALTH, Value
from center.victoria.client import LATER, MS_NS, SHIFT_MS
from drivers.quantities import QUANTITIES

EARLIEST_MS = 2 * SHIFT_MS  # asked for less than 1970, it answers nothing at all
HEALTH_FLOATS = {"uptime", "board_uptime", "clock_error_s", "cpu_temperature", "load"}
# For each function what is asked of each series, if it is not the function alone.
PARTS = {"mean": ("sum", "count"), "band": ("sum", "count", "min", "max")}
MOMENTS = {fn: (f"{fn}_over_time", f"t{fn}_over_time") for fn in ("first", "last")}
MEDIAN = ("median_over_time",)
Labels = tuple[tuple[str, str], ...]
# Bytes in a query, which has 16,384 (-search.maxQueryLen): ids stand in it three times, names of fields twice.
CHUNK = 50
MAX_IDS, MAX_FIELDS = 3500, 2000


def text(value: str) -> str:
    """A string of MetricsQL; Go's escapes are those of JSON."""
    return json.dumps(value, ensure_ascii=False)


def one_of(values: Iterable[str]) -> str:
    """A regular expression (RE2) that matches these texts and no other."""
    return "|".join(re.sub(r"[.*+?^${}()|\[\]\\]", r"\\\g<0>", value) for value in values)


def chunks(device_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Device ids, as many at a time as one query can name."""
    first = size = 0
    for place, device_id in enumerate(device_ids):
        own = len(text(one_of([device_id])).encode())
        if place > first and (size + own > MAX_IDS or place - first == CHUNK):
            yield device_ids[first:place]
            first, size = place, 0
        size += own
    if device_ids:
        yield device_ids[first:]


def few(fields: Sequence[str]) -> Sequence[str]:
    """These fields, or none, which stands for all, where a query that names devices has no place for their names."""
    return fields if len(text(one_of(fields)).encode()) <= MAX_FIELDS else ()


def selectors(device_ids: Sequence[str], measurement: str, fields: Sequence[str] = ()) -> list[str]:
    """The series of devices (none: of all), by `clientId` and, of those that have another or none, by `device`."""
    names = f"(?:{one_of(fields)})" if fields else ".+"
    name = f"__name__=~{text(one_of([measurement]) + '_' + names)}"
    if not device_ids:
        return [f"{{{name}}}"]
    ids = text(one_of(device_ids))
    return [f"{{{name},clientId=~{ids}}}", f"{{{name},clientId!~{ids},device=~{ids}}}"]


def rollup(functions: Sequence[str], wanted: Sequence[str], window_ms: int) -> str:
    """What these functions give over the window before a moment, of each series, named in the label `rollup`."""
    if functions == MEDIAN:  # not one of those that aggr_over_time knows
        medians = (f"median_over_time({selector}[{window_ms}ms] {LATER}) keep_metric_names" for selector in wanted)
        return f'label_set(union({",".join(medians)}),"rollup",{text(MEDIAN[0])})'
    names = ",".join(text(name) for name in functions)
    parts = (f"aggr_over_time(({names}),{selector}[{window_ms}ms] {LATER}) keep_metric_names" for selector in wanted)
    return f"union({','.join(parts)})"


def ceil_ms(time_ns: int) -> int:
    """The first millisecond at or after a time, not before the fifth day of 1970."""
    return max(EARLIEST_MS, -(-time_ns // MS_NS))


def typed(field: str, measurement: str, value: float) -> Value:
    """An integer where the data model has integers, which the store does not keep apart."""
    quantity = QUANTITIES.get(field.removesuffix("_min").removesuffix("_max"))
    whole = quantity is not None and quantity.kind == "integer"
    if measurement == HEALTH:
        whole = field not in HEALTH_FLOATS
    return int(value) if whole and value.is_integer() else value


def row_of(labels: Iterable[tuple[str, str]] | Mapping[str, str], measurement: str) -> Row:
    tags: Row = dict(labels)
    name = tags.pop("__name__")
    return tags | {"_field": name[len(measurement) + 1 :]}


def tags_of(labels: Labels) -> Labels:
    return tuple(label for label in labels if label[0] != "__name__")


def with_value(row: Row, measurement: str, given: Mapping[str, float], part: str, end_ms: int = 0) -> Row:
    """One part of what is given of a series, as the arithmetic for all stores takes it."""
    row = dict(row)
    value = given[f"{part}_over_time"]
    moment = given.get(f"t{part}_over_time")
    row["result"], row["_stop"] = part, end_ms * MS_NS
    row["_time"] = row["_stop"] if moment is None else round(moment * 1000) * MS_NS
    row["_value"] = (
        round(value) if part == "count" else value if part == "median" else typed(row["_field"], measurement, value)
    )
    return row


def parts(labels: Labels, fn: str, given: Mapping[str, float], end_ms: int) -> list[Row]:
    """The parts of a window that ends there."""
    tagged = row_of(labels, ENVIRONMENT)
    if fn in MOMENTS:
        return [with_value(tagged, ENVIRONMENT, given, fn, end_ms) | {"result": "moment"}]
    return [with_value(tagged, ENVIRONMENT, given, part, end_ms) for part in PARTS.get(fn, (fn,))]
