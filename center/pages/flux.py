"""Flux: the query of a chart, as text for people to read and copy, with every value escaped as a literal."""

from __future__ import annotations

from agent.config.units import format_duration
from center.stores.telemetry import ENVIRONMENT, SECOND_NS, SeriesQuery
from center.times import iso

_ESCAPES = {"\\": "\\\\", '"': '\\"', "$": "\\x24", "\0": "\\x00", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def literal(text: str) -> str:
    r"""A Flux string. `$` is written \\x24: `\\${` is a syntax error after another `$` (measured on 2.9.1)."""
    return '"' + "".join(_ESCAPES.get(character, character) for character in text) + '"'


def pipeline(query: SeriesQuery, bucket: str, *others: str) -> str:
    """The query, of its device and these others, as one pipeline of Flux."""
    devices = " or ".join(
        f"r.{tag} == {literal(i)}" for i in (query.device_id, *others) for tag in ("clientId", "device")
    )
    lines = [
        f"from(bucket: {literal(bucket)})",
        f"  |> range(start: {iso(query.start_ns)}, stop: {iso(query.stop_ns)})",
        f"  |> filter(fn: (r) => r._measurement == {literal(ENVIRONMENT)})",
        f"  |> filter(fn: (r) => {devices})",
    ]
    if query.fields:
        wanted = " or ".join(f"r._field == {literal(field)}" for field in query.fields)  # contains(): 300 times slower
        lines.append(f"  |> filter(fn: (r) => {wanted})")
    if query.every_ns is not None:
        every = format_duration(query.every_ns / SECOND_NS)
        lines.append(f"  |> aggregateWindow(every: {every}, fn: {query.fn}, createEmpty: false)")
    lines.append("  |> keep(fn: (column) => column =~ /Sensor$|^(_time|_value|_field|sensor|clientId|device)$/)")
    return "\n".join(lines)
