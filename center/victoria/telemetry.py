"""Telemetry on VictoriaMetrics. A field of a measurement is a metric (`environment_Temperature`), tags are its labels.

It keeps numbers only: texts are refused, truths are 1 and 0, integers are told by the table of quantities. It keeps
milliseconds: a stamp between two is the earlier one. Windows are asked for exactly: a window (t - w, t] of MetricsQL
that ends a millisecond before ours does is our [start, stop).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from center.errors import NotSupportedError, RefusedError, StoreError
from center.stores.rows import Row, Windows, devices_of, of, points_of, summaries
from center.stores.telemetry import (
    AHEAD_NS,
    DAY_NS,
    ENVIRONMENT,
    HEALTH,
    HOUR_NS,
    MAX_VALUES,
    SECOND_NS,
    Bucket,
    Curve,
    FieldSummary,
    LastValue,
    Point,
    SeriesQuery,
    newest_of,
    numbers_of_devices,
)
from center.times import now_ns
from center.victoria.client import LATER, MS_NS, Victoria, retention_s
from center.victoria.lines import Kept
from center.victoria.metricsql import (
    CHUNK,
    EARLIEST_MS,
    MOMENTS,
    PARTS,
    Labels,
    ceil_ms,
    chunks,
    few,
    parts,
    rollup,
    row_of,
    selectors,
    tags_of,
    typed,
    with_value,
)

WRITE_LINES = 5000
WINDOWS = 10_000  # in one query: -search.maxPointsPerTimeseries is 30,000
LOOK_BACK_NS = (DAY_NS, 32 * DAY_NS)  # what is asked first for last values
AHEAD_MOST_NS = 2 * DAY_NS  # it leaves out what is stamped further ahead
COUNTED_MS = 30 * DAY_NS // MS_NS  # read at a time to count points
DEVICE_TAGS = ("clientId", "device")
SUMMARY = tuple(f"{part}_over_time" for part in ("count", "min", "max", "last", "tlast"))


class VictoriaTelemetry:
    """Implements Telemetry."""

    failing: Mapping[str, str] = MappingProxyType({})

    def __init__(self, victoria: Victoria, bucket: str) -> None:
        self.victoria = victoria
        self.bucket = bucket

    def reach(self) -> None:
        """StoreError where it cannot be read from."""
        self.victoria.instant("1", ceil_ms(now_ns()))

    def _over(
        self, functions: Sequence[str], wanted: Sequence[str], start_ms: int, stop_ms: int
    ) -> dict[Labels, dict[str, float]]:
        """Series → function → what it gives over [start, stop)."""
        found: dict[Labels, dict[str, float]] = {}
        if start_ms >= stop_ms:  # between two milliseconds: a window of nothing is one of some length to it
            return found
        for labels, value in self.victoria.instant(rollup(functions, wanted, stop_ms - start_ms), stop_ms - 1):
            function = labels.pop("rollup")
            found.setdefault(tuple(sorted(labels.items())), {})[function] = value
        return found

    def _last(self, wanted: Sequence[str], measurement: str, start_ms: int, stop_ms: int) -> list[Row]:
        found = self._over(MOMENTS["last"], wanted, start_ms, stop_ms)
        return [with_value(row_of(labels, measurement), measurement, given, "last") for labels, given in found.items()]

    def last_values(
        self, device_ids: Sequence[str], *, measurement: str = ENVIRONMENT, since_ns: int = 0
    ) -> Mapping[str, Sequence[LastValue]]:
        wanted, now = set(device_ids), now_ns()
        stop, since = ceil_ms(now + AHEAD_NS), ceil_ms(since_ns)
        rows: list[Row] = []
        if len(device_ids) > 10 * CHUNK:  # of very many: all, sorted out here
            rows = self._last(selectors((), measurement), measurement, since, stop)
        else:
            for chunk in chunks(device_ids):
                rows += self._look_back(chunk, measurement, since, stop, now)
        found: dict[str, list[LastValue]] = {}
        for row in rows:
            last = LastValue(*of(row), row["_value"], row["_time"])
            for device in devices_of(row) & wanted:
                found.setdefault(device, []).append(last)
        return {device: newest_of(lasts) for device, lasts in found.items()}

    def _look_back(self, device_ids: Sequence[str], measurement: str, since: int, stop: int, now: int) -> list[Row]:
        """The newest samples: of the last day, and from further back only of those sensors that have none there."""
        wanted = selectors(device_ids, measurement)
        rows: list[Row] = []
        for back_ns in (*LOOK_BACK_NS, now):
            start = max(since, ceil_ms(now - back_ns))
            rows += self._last(wanted, measurement, start, stop)
            if start <= since:
                break
            known = {(device, *of(row)) for row in rows for device in devices_of(row)}
            older = [
                (device, row["_field"])
                for labels in self.victoria.series(wanted, since, start)
                for row in (row_of(labels, measurement),)
                for device in devices_of(row) & set(device_ids)
                if (device, *of(row)) not in known
            ]
            if not older:
                break
            devices, fields = (sorted(set(column)) for column in zip(*older, strict=True))
            wanted, stop = selectors(devices, measurement, few(fields)), start
        return rows

    def last_seen(self, *, since_ns: int) -> Mapping[str, int]:
        now = now_ns()
        since, stop = ceil_ms(since_ns), ceil_ms(now + AHEAD_NS)
        recent = max(since, ceil_ms(now - HOUR_NS))
        everything = selectors((), ENVIRONMENT)
        found: dict[str, int] = {}
        self._newest(everything, recent, stop, found)
        if recent > since:
            known = {d for tag in DEVICE_TAGS for d in self.victoria.values(tag, everything[0], since, stop)}
            for start in sorted({max(since, ceil_ms(now - DAY_NS)), since}, reverse=True):
                silent = sorted(known - found.keys())
                for chunk in chunks(silent):
                    self._newest(selectors(chunk, ENVIRONMENT), start, recent, found)
                recent = start
        return found

    def _newest(self, wanted: Sequence[str], start_ms: int, stop_ms: int, found: dict[str, int]) -> None:
        """Puts what is newer into `found`. A series of a device may be another's, too, which has newer ones."""
        for selector in wanted:
            query = f"max(tlast_over_time({selector}[{stop_ms - start_ms}ms] {LATER})) by ({', '.join(DEVICE_TAGS)})"
            for labels, seconds in self.victoria.instant(query, stop_ms - 1):
                for device in devices_of(labels):
                    found[device] = max(found.get(device, 0), round(seconds * 1000) * MS_NS)

    def health(self, fields: Sequence[str], *, since_ns: int) -> Mapping[str, Mapping[str, float]]:
        stop = ceil_ms(now_ns() + AHEAD_NS)
        rows = self._last(selectors((), HEALTH, fields), HEALTH, ceil_ms(since_ns), stop)
        told = ((device, r["_field"], float(r["_value"]), r["_time"]) for r in rows for device in devices_of(r))
        return numbers_of_devices(told)

    def sparklines(
        self, device_ids: Sequence[str], field: str, *, start_ns: int, stop_ns: int, every_ns: int
    ) -> Mapping[str, Sequence[Curve]]:
        by_device: dict[str, list[Row]] = {}
        for chunk in chunks(device_ids):
            query = SeriesQuery(chunk[0], start_ns, stop_ns, (field,), every_ns)
            for row in self._windows(query, selectors(chunk, ENVIRONMENT, (field,))):
                for device in devices_of(row) & set(chunk):
                    by_device.setdefault(device, []).append(row)
        windows = Windows(every_ns, stop_ns)
        return {device: windows.curves(rows, "mean") for device, rows in by_device.items()}

    def summary(self, device_id: str, *, start_ns: int, stop_ns: int) -> Sequence[FieldSummary]:
        found = self._over(SUMMARY, selectors((device_id,), ENVIRONMENT), ceil_ms(start_ns), ceil_ms(stop_ns))
        return summaries(
            with_value(row_of(labels, ENVIRONMENT), ENVIRONMENT, given, result)
            for labels, given in found.items()
            for result in ("count", "last", "min", "max")
        )

    def series(self, query: SeriesQuery) -> Sequence[Curve]:
        wanted = selectors((query.device_id,), ENVIRONMENT, query.fields)
        if query.every_ns is None:
            return points_of(self._points(query, wanted))
        windows = Windows(query.every_ns, query.stop_ns)
        rows = self._windows(query, wanted)
        if query.fn == "median" and windows.shared(rows):  # no way to tell it from less than all points
            return windows.medians(self._points(query, wanted))
        return windows.bands(rows) if query.band else windows.curves(rows, query.fn)

    def _points(self, query: SeriesQuery, wanted: Sequence[str]) -> Iterator[Row]:
        """The samples themselves."""
        taken, start, stop = 0, ceil_ms(query.start_ns), ceil_ms(query.stop_ns)
        for labels, times, values in self.victoria.export(wanted, start, stop) if start < stop else ():
            taken += len(times)
            if taken > MAX_VALUES:
                raise RefusedError(f"these are more than {MAX_VALUES} values: choose a shorter range, or windows")
            tagged = row_of(labels, ENVIRONMENT)
            for at, value in zip(times, values, strict=True):
                yield tagged | {"_time": at * MS_NS, "_value": typed(tagged["_field"], ENVIRONMENT, value)}

    def _windows(self, query: SeriesQuery, wanted: Sequence[str]) -> list[Row]:
        """What the store gives of each series for whole windows, and for those that the range cuts."""
        assert query.every_ns is not None
        if query.every_ns % MS_NS:
            raise RefusedError("VictoriaMetrics keeps milliseconds: every is a whole number of them")
        every, fn = query.every_ns // MS_NS, "band" if query.band else query.fn
        functions = MOMENTS.get(fn) or tuple(f"{part}_over_time" for part in PARTS.get(fn, (fn,)))
        start, stop = ceil_ms(query.start_ns), ceil_ms(query.stop_ns)
        first, last = -(-start // every) * every, stop // every * every
        if first >= last:  # no whole window
            first = last = min(first, stop)
        rows: list[Row] = []
        for low, high in ((start, first), (last, stop)):
            if low < high:
                for labels, given in self._over(functions, wanted, low, high).items():
                    rows += parts(labels, fn, given, high)
        for begin in range(first, last, WINDOWS * every):
            end = min(begin + WINDOWS * every, last)
            by_window: dict[tuple[Labels, int], dict[str, float]] = {}
            for tags, values in self.victoria.range(
                rollup(functions, wanted, every), begin + every - 1, end - 1, every
            ):
                function = tags.pop("rollup")
                series = tuple(sorted(tags.items()))
                for at, value in values:
                    by_window.setdefault((series, at + 1), {})[function] = value
            for (series, at), given in by_window.items():
                rows += parts(series, fn, given, at)
        return rows

    def count(self, device_id: str) -> int:
        """The fields of a series can have different times, so where it has several, the times themselves are read."""
        wanted, stop = selectors((device_id,), ENVIRONMENT), ceil_ms(now_ns() + AHEAD_MOST_NS)
        counted = self._over(("count_over_time", "tfirst_over_time", "tlast_over_time"), wanted, EARLIEST_MS, stop)
        fields: dict[Labels, list[dict[str, float]]] = {}
        for labels, given in counted.items():
            fields.setdefault(tags_of(labels), []).append(given)
        alone = sum(round(found[0]["count_over_time"]) for found in fields.values() if len(found) == 1)
        several = [given for found in fields.values() if len(found) > 1 for given in found]
        if not several:
            return alone
        first = int(min(given["tfirst_over_time"] for given in several)) * 1000
        stop = int(max(given["tlast_over_time"] for given in several)) * 1000 + 1000
        for low in range(first, stop, COUNTED_MS):
            times: dict[Labels, set[int]] = {}
            for tags, stamps, _ in self.victoria.export(wanted, low, min(low + COUNTED_MS, stop)):
                series = tags_of(tuple(sorted(tags.items())))
                if len(fields.get(series, ())) > 1:
                    times.setdefault(series, set()).update(stamps)
            alone += sum(len(found) for found in times.values())
        return alone

    def write(self, points: Sequence[Point]) -> None:
        kept = self.kept()
        lines = list(map(kept.line, points))
        for first in range(0, len(lines), WRITE_LINES):
            answer = self.victoria.write("\n".join(lines[first : first + WRITE_LINES]).encode())
            if answer.status == 413:
                raise RefusedError(answer.message)
            if answer.status != 204:
                raise StoreError(f"{self.victoria.write_url}: {answer.status} {answer.message}")

    def kept(self) -> Kept:
        """For one request: what of it is kept as it is."""
        now, kept_s = now_ns(), retention_s(self.victoria.flags())
        return Kept(max(EARLIEST_MS * MS_NS, now - kept_s * SECOND_NS if kept_s else 0), now + AHEAD_MOST_NS)

    def buckets(self) -> Sequence[Bucket]:
        return [Bucket("victoria", self.bucket, retention_s(self.victoria.flags()) or 0, "telemetry")]

    def raw_flux(self, text: str) -> str:  # noqa: ARG002 - the interface's
        raise NotSupportedError("VictoriaMetrics knows no Flux: this needs InfluxDB")
