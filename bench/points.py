"""The points that are measured with: a BME280 at 1 Hz, three fields, some 177 bytes a line."""

from __future__ import annotations

import random
import time
from functools import cache
from typing import TYPE_CHECKING

from agent.points.schema import Line, line_for
from drivers.virtual import Virtual

if TYPE_CHECKING:
    from collections.abc import Iterator

SECOND = 1_000_000_000
BLOCK = 5000
DEVICE = "bench-1"


@cache
def heads(device: str = DEVICE) -> tuple[bytes, ...]:
    """The lines of BLOCK seconds without their stamps, with the noise that a sensor has."""
    sensor = Virtual(Virtual.Options(seed=7))
    fields = ("Temperature", "Humidity", "Pressure")
    found = []
    for second in range(BLOCK):
        values = sensor.values_at(1_767_225_600.0 + second)
        found.append(line_for(device, "bme280", {name: values[name] for name in fields}, boot_ns=0).head)
    return tuple(found)


@cache
def late_ns() -> tuple[int, ...]:
    """How long after the second each reading is taken: a millisecond or so, never quite the same."""
    known = random.Random(7)
    return tuple(437_000_000 + 1_000_000 * known.choice((0, 0, 0, 1, 1, 2)) for _ in range(BLOCK))


def start_ns(count: int) -> int:
    """A whole second such that `count` points at 1 Hz end a minute ago."""
    return (int(time.time()) - 60 - count) * SECOND


def blocks(count: int, first_ns: int, device: str = DEVICE) -> Iterator[list[bytes]]:
    """`count` encoded lines from `first_ns` on, up to BLOCK at a time."""
    known, late = heads(device), late_ns()
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        yield [b"%s %d" % (known[n], first_ns + (start + n) * SECOND + late[n]) for n in range(size)]


def lines(count: int, first_ns: int, device: str = DEVICE) -> list[Line]:
    known, late = heads(device), late_ns()
    return [Line(known[n % BLOCK], 0, first_ns + n * SECOND + late[n % BLOCK]) for n in range(count)]
