"""Telemetry on InfluxDB 2, with the queries in the forms that were measured to be fast.

One pipeline for each function, `or` instead of contains(), nothing between the range, filters and aggregate that keeps
the storage engine from doing the work. The series of one sensor are brought together here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

from influxdb_client.domain.dialect import Dialect

from center.errors import RefusedError
from center.influx.client import Influx, retention
from center.influx.rows import numbers_of, tags_of, uniform
from center.line_protocol import encode
from center.stores.rows import Row, Windows, devices_of, of, points_of, summaries
from center.stores.telemetry import (
    AHEAD_NS,
    DAY_NS,
    ENVIRONMENT,
    HEALTH,
    MAX_VALUES,
    Bucket,
    Curve,
    FieldSummary,
    LastValue,
    Point,
    SeriesQuery,
    newest_of,
    numbers_of_devices,
)
from center.times import MAX_TIME, now_ns
from drivers.base import QUANTITIES

WRITE_LINES = 5000
FILTERED = 50  # devices in one filter: Flux takes no expression that is nested much deeper
# The newest point of each device: grouped before last(), which the storage engine then does; numbers of one type only.
INTEGERS = "|".join(name for name, quantity in QUANTITIES.items() if quantity.kind == "integer")
GROUPED = (
    '|> group(columns: ["clientId", "device"]) |> last() |> group() |> keep(columns: ["_time", "clientId", "device"])'
)
NEWEST = " ".join(
    f'%s |> filter(fn: (r) => r._field {sign} /^({INTEGERS})(_|$)/) {GROUPED} |> yield(name: "{name}")'
    for sign, name in (("!~", "floats"), ("=~", "integers"))
)
HEALTHS = (
    '|> group(columns: ["clientId", "device"]) |> last() |> group() '
    '|> keep(columns: ["_time", "_field", "_value", "clientId", "device"])'
)
NUMERIC = {"mean", "min", "max", "median", "sum"}
# Of the tags only those that tell sensors and devices apart.
KEEP = "|> keep(fn: (column) => column =~ /Sensor$|^(_time|_stop|_value|_field|sensor|clientId|device)$/)"
# What cannot be told from the values of several series in one window.
APART = {"mean", "median", "first", "last"}


class InfluxTelemetry:
    """Implements Telemetry."""

    failing: Mapping[str, str] = MappingProxyType({})

    def __init__(self, influx: Influx, bucket: str, bucket_auth: str) -> None:
        self.influx = influx
        self.bucket = bucket
        self.bucket_auth = bucket_auth

    def _from(
        self, device_ids: Sequence[str], measurement: str, start_ns: int, stop_ns: int, fields: Sequence[str] = ()
    ) -> tuple[str, dict[str, Any]]:
        """The common head of the pipelines, and its parameters."""
        params: dict[str, Any] = {
            "_bucket": self.bucket,
            "_start": max(start_ns, -MAX_TIME),
            "_stop": min(stop_ns, MAX_TIME),
            "_measurement": measurement,
        }
        head = "from(bucket: _bucket) |> range(start: time(v: _start), stop: time(v: _stop))"
        wanted = ["r._measurement == _measurement"]
        for mark, columns, values in (("_d", ("clientId", "device"), device_ids), ("_f", ("_field",), fields)):
            named = {f"{mark}{n}": value for n, value in enumerate(values)}
            params |= named
            if named:
                wanted.append("(" + " or ".join(f"r.{column} == {name}" for name in named for column in columns) + ")")
        return f"{head} |> filter(fn: (r) => {' and '.join(wanted)})", params

    def last_values(
        self, device_ids: Sequence[str], *, measurement: str = ENVIRONMENT, since_ns: int = 0
    ) -> Mapping[str, Sequence[LastValue]]:
        wanted = set(device_ids)
        chunks: list[Sequence[str]] = [()]  # of very many: all, sorted out here
        if len(device_ids) <= 10 * FILTERED:
            chunks = [device_ids[n : n + FILTERED] for n in range(0, len(device_ids), FILTERED)]
        found: dict[str, list[LastValue]] = {}
        now = now_ns()

        def ask(devices: Sequence[str], tail: str, fields: Sequence[str] = ()) -> list[Row]:
            head, params = self._from(devices, measurement, since_ns, now + AHEAD_NS, fields)
            return self.influx.rows(f"{head} |> {tail}", params)

        def take(rows: Iterable[Row]) -> None:
            for row in rows:
                last = LastValue(*of(row), row.get("_value", ""), row["_time"])
                for device in devices_of(row) & wanted:
                    found.setdefault(device, []).append(last)

        for chunk in chunks:
            take(ask(chunk, "last()"))
            quiet = [d for d in chunk if all(last.time_ns < now - DAY_NS for last in found.get(d, ()))]
            if quiet and since_ns < now - DAY_NS:  # last() leaves out what had another type in an older shard
                hidden = [
                    (device, row["_field"])
                    for row in ask(quiet, "first()")
                    for device in devices_of(row) & wanted
                    if of(row) not in {(last.field, last.sensor) for last in found.get(device, ())}
                ]
                if hidden:
                    take(ask(sorted({d for d, _ in hidden}), 'max(column: "_time")', sorted({f for _, f in hidden})))
        return {device: newest_of(lasts) for device, lasts in found.items()}

    def last_seen(self, *, since_ns: int) -> Mapping[str, int]:
        head, params = self._from((), ENVIRONMENT, since_ns, now_ns() + AHEAD_NS)
        try:
            rows = self.influx.rows(NEWEST % (head, head), params)
        except RefusedError as error:  # a field that is no integer by the data model holds some, or texts
            if "collision" not in str(error):
                raise
            tail = '|> last() |> keep(columns: ["_time", "clientId", "device"]) |> max(column: "_time")'
            rows = self.influx.rows(f"{head} {tail}", params)
        found: dict[str, int] = {}
        for row in rows:
            for device in devices_of(row):
                found[device] = max(found.get(device, row["_time"]), row["_time"])
        return found

    def health(self, fields: Sequence[str], *, since_ns: int) -> Mapping[str, Mapping[str, float]]:
        """A pipeline for each field: one of several, or of several types, takes many times as long."""
        head, params = self._from((), HEALTH, since_ns, now_ns() + AHEAD_NS)
        named = {f"_f{n}": field for n, field in enumerate(fields)}
        tails = {name: f"|> filter(fn: (r) => r._field == {name}) {HEALTHS}" for name in named}
        rows = self.influx.rows(_named(head, tails), params | named)
        return numbers_of_devices((i, r["_field"], float(r["_value"]), r["_time"]) for r in rows for i in devices_of(r))

    def sparklines(
        self, device_ids: Sequence[str], field: str, *, start_ns: int, stop_ns: int, every_ns: int
    ) -> Mapping[str, Sequence[Curve]]:
        if not device_ids:
            return {}
        head, params = self._from(device_ids, ENVIRONMENT, start_ns, stop_ns, (field,))
        params["_every"] = every_ns
        windows = Windows(every_ns, stop_ns)
        rows = self.influx.rows(f"{head} {_window('mean')}", params)
        if windows.shared(rows):
            rows = self.influx.rows(_named(head, _exactly("mean")), params)
        by_device: dict[str, list[Row]] = {}
        for row in rows:
            for device in devices_of(row) & set(device_ids):
                by_device.setdefault(device, []).append(row)
        return {device: windows.curves(found, "mean") for device, found in by_device.items()}

    def _uniform(self, device_id: str, start_ns: int, stop_ns: int) -> list[tuple[int, int]]:
        """The range, cut where a field changes its type."""

        def ends(span: tuple[int, int]) -> Sequence[Row]:
            head, params = self._from((device_id,), ENVIRONMENT, *span)
            return self.influx.rows(_yields(head, "first", "last"), params)

        return uniform((start_ns, stop_ns), ends)

    def summary(self, device_id: str, *, start_ns: int, stop_ns: int) -> Sequence[FieldSummary]:
        """Of count, last, and of numbers also min and max of each series, named in `result`: a pipeline for each."""
        rows: list[Row] = []
        for span in self._uniform(device_id, start_ns, stop_ns):
            head, params = self._from((device_id,), ENVIRONMENT, *span)
            found = self.influx.rows(_yields(head, "count", "last"), params)
            if hidden := {of(row) for row in found} - {of(row) for row in found if row["result"] == "last"}:
                # last() leaves out what has another type in the shard that the range ends at.
                newest, params = self._from((device_id,), ENVIRONMENT, *span, sorted({field for field, _ in hidden}))
                found += self.influx.rows(f'{newest} |> max(column: "_time") |> yield(name: "last")', params)
            rows += found
            if numbers := numbers_of(row for row in found if row["result"] == "last"):
                head, params = self._from((device_id,), ENVIRONMENT, *span, numbers)
                rows += self.influx.rows(_yields(head, "min", "max"), params)
        return summaries(rows)

    def series(self, query: SeriesQuery) -> Sequence[Curve]:
        spans = self._uniform(query.device_id, query.start_ns, query.stop_ns)
        if query.every_ns is None:
            return points_of(self._points(query, spans))
        windows = Windows(query.every_ns, query.stop_ns)
        tails: Mapping[str, str] = BAND if query.band else {query.fn: _window(query.fn)}
        rows = [row for span in spans for row in self._rows(query, span, tails)]
        if query.band:
            return windows.bands(rows)
        if query.fn in APART and windows.shared(rows):
            there = replace(query, fields=tuple(sorted({row["_field"] for row in rows})))
            if query.fn == "median":  # no way to tell it from less than all points
                return windows.medians(self._points(there, spans))
            rows = [row for span in spans for row in self._rows(there, span, _exactly(query.fn))]
        return windows.curves(rows, query.fn)

    def _points(self, query: SeriesQuery, spans: Sequence[tuple[int, int]]) -> list[Row]:
        """The points themselves; counted first, which the storage engine does."""
        asked = [self._from((query.device_id,), ENVIRONMENT, *span, query.fields) for span in spans]
        counts = [row["_value"] for head, params in asked for row in self.influx.rows(f"{head} |> count()", params)]
        if sum(counts) > MAX_VALUES:
            raise RefusedError(f"these are more than {MAX_VALUES} values: choose a shorter range, or windows")
        return [row for head, params in asked for row in self.influx.rows(head, params)]

    def _rows(self, query: SeriesQuery, span: tuple[int, int], tails: Mapping[str, str]) -> list[Row]:
        """What the pipelines with these ends give, each named in `result`."""
        asked = (query.device_id,), ENVIRONMENT, *span
        every = {"_every": query.every_ns}
        head, params = self._from(*asked, query.fields)
        try:
            return self.influx.rows(
                _named(head, {name: f"{tail} {KEEP}" for name, tail in tails.items()}), params | every
            )
        except RefusedError as error:
            if "schema collision" in str(error):  # series of one device differ in a field's type
                return self.influx.rows(_named(head, tails), params | every)
            head, params = self._from(*asked)  # InfluxDB refuses the mean of a text, and with it the query
            numbers = numbers_of(self.influx.rows(f"{head} |> first()", params))
            fields = [f for f in numbers if not query.fields or f in query.fields]
            if query.fn not in NUMERIC or (fields and set(fields) == set(query.fields)):
                raise
        if not fields:
            return []
        head, params = self._from(*asked, fields)
        return self.influx.rows(_named(head, tails), params | every)

    def count(self, device_id: str) -> int:
        spans = self._uniform(device_id, -MAX_TIME, MAX_TIME)
        return sum(self._count(device_id, *span) for span in spans)

    def _count(self, device_id: str, start_ns: int, stop_ns: int) -> int:
        head, params = self._from((device_id,), ENVIRONMENT, start_ns, stop_ns)
        rows = self.influx.rows(f"{head} |> count()", params)
        if len({tags_of(row) for row in rows}) == len(rows):  # one field in each series
            return sum(row["_value"] for row in rows)
        keep = '|> group(columns: ["_field", "_value", "_time", "_start", "_stop"], mode: "except")'
        unique = f'{head} |> map(fn: (r) => ({{r with _value: 1}})) {keep} |> unique(column: "_time") |> count()'
        return sum(row["_value"] for row in self.influx.rows(unique, params))

    def write(self, points: Sequence[Point]) -> None:
        lines = [encode(point) for point in points]
        for first in range(0, len(lines), WRITE_LINES):
            self.influx.write(self.bucket, lines[first : first + WRITE_LINES])

    def buckets(self) -> Sequence[Bucket]:
        roles: dict[str, Literal["telemetry", "auth"]] = {self.bucket: "telemetry", self.bucket_auth: "auth"}
        ours = [bucket for bucket in self.influx.find_buckets(limit=100) if not bucket.name.startswith("_")]
        return [Bucket(b.id, b.name, retention(b), roles.get(b.name, "other")) for b in ours]

    def raw_flux(self, text: str) -> str:
        dialect = Dialect(annotations=["datatype", "group", "default"], header=True, date_time_format="RFC3339Nano")
        with self.influx.call("raw query", refused=(400, 404)):
            answer = self.influx.client.query_api().query_raw(text, org=self.influx.settings.org, dialect=dialect)
            return str(answer.data.decode("utf-8", "replace"))


def _window(fn: str) -> str:
    return f"|> aggregateWindow(every: duration(v: _every), fn: {fn}, createEmpty: false)"


BAND = {part: _window(part) for part in ("sum", "count", "min", "max")}


def _exactly(fn: str) -> dict[str, str]:
    """The ends of the pipelines that tell this of several series."""
    if fn == "mean":
        return {part: _window(part) for part in ("sum", "count")}
    return {"moment": f"|> window(every: duration(v: _every)) |> {fn}()"}


def _yields(head: str, *functions: str) -> str:
    return _named(head, {fn: f"|> {fn}()" for fn in functions})


def _named(head: str, tails: Mapping[str, str]) -> str:
    """A pipeline for each end: one variable with several yields takes many times as long."""
    return " ".join(f'{head} {tail} |> yield(name: "{name}")' for name, tail in tails.items())
