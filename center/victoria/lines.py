"""Lines for VictoriaMetrics, of points that it keeps as they are.

What it cannot read or keep it leaves out or changes without a word, and it reads line protocol in ways of its own: a
newline ends a line even in a text, `.5` is 0, a line with white space before or behind it is none. So it gets no line
as it came, but each point written anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from center.errors import NotSupportedError, RefusedError
from center.line_protocol import encode, value_text
from center.stores.telemetry import Point
from center.times import iso

NO_TEXT = "VictoriaMetrics keeps numbers only: a field with a text needs InfluxDB"
ITS_OWN = {"__name__", "rollup"}  # labels that it sets itself
# Seen with 1.79.5, which cuts off what is more (-maxLabelsPerTimeseries, -maxLabelValueLen): 30 tags, names of 256
# bytes, values of 16,384. The bound of a value is shorter, since later versions have shorter ones.
MAX_TAGS = 30
MAX_NAME = 256
MAX_TEXT = 1024
MAX_LINE = 262_144  # -influx.maxLineSize: it answers 400, and what came before in the body is stored
MAX_PLAIN = 1000
LARGEST = 2**53  # beyond it integers are rounded, and with them the decimals of values beside them in its files


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept at a moment: points of these times (ns). For one request, whose lines are mostly of few series."""

    oldest_ns: int
    newest_ns: int
    _plain: set[tuple[str, ...]] = field(default_factory=set)

    def line(self, point: Point) -> str:
        """RefusedError and NotSupportedError say why a point would not be kept as it is."""
        for name, value in point.fields.items():
            if isinstance(value, str):
                raise NotSupportedError(NO_TEXT)
            if abs(value) > LARGEST:
                raise RefusedError(f"{name}: VictoriaMetrics keeps no value beyond 2^53 = {LARGEST} exactly")
        at = point.time_ns
        if at is not None and at < self.oldest_ns:
            raise RefusedError(f"VictoriaMetrics keeps no point of {iso(at)}: see its -retentionPeriod")
        if at is not None and at > self.newest_ns:
            raise RefusedError(f"VictoriaMetrics takes no point of {iso(at)}, more than two days ahead")
        line = self._written(point)
        if len(line) > MAX_LINE // 4 and len(line.encode()) > MAX_LINE:
            raise RefusedError(f"VictoriaMetrics takes no line of more than {MAX_LINE} bytes: give it fewer fields")
        return line

    def _written(self, point: Point) -> str:
        """Names are looked at once for each series as it was sent: that takes ten times as long as their values."""
        names = (point.series, *point.fields)
        tail = " " + ",".join(f"{name}={value_text(value)}" for name, value in point.fields.items())
        tail += "" if point.time_ns is None else f" {point.time_ns}"
        if names in self._plain:
            return point.series + tail
        _check_names(point)
        line = encode(point)
        if point.series and line.endswith(tail) and len(self._plain) < MAX_PLAIN:
            self._plain.add(names)
        return line


def _check_names(point: Point) -> None:
    texts = (point.measurement, *point.tags, *point.tags.values(), *point.fields)
    if any('"' in text for text in texts):
        raise RefusedError('VictoriaMetrics takes a quotation mark (") in a name or tag for the start of a text')
    if any("\\\\" in text for text in texts):
        raise RefusedError("VictoriaMetrics makes one backslash of two in a name or tag")
    if taken := ITS_OWN & point.tags.keys():
        raise RefusedError(f"VictoriaMetrics sets the tag {min(taken)} itself: give it another name")
    longest = len(point.measurement.encode()) + 1 + max(len(field.encode()) for field in point.fields)
    if len(point.tags) > MAX_TAGS or any(len(name.encode()) > MAX_NAME for name in point.tags):
        raise RefusedError(f"VictoriaMetrics keeps {MAX_TAGS} tags of a point, and {MAX_NAME} bytes of a tag's name")
    if longest > MAX_TEXT or any(len(text.encode()) > MAX_TEXT for text in point.tags.values()):
        raise RefusedError(f"VictoriaMetrics may cut a tag, or measurement and field, of more than {MAX_TEXT} bytes")
