"""The virtual device: a week of weather without a sensor, written in batches so that a page can show the progress."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from flask import flash, redirect, render_template, request, url_for

from center.context import current_center
from center.errors import ConflictError
from center.pages.blueprint import administrators_only, pages, wants_json
from center.pages.states import newest, state_of
from center.stores.registry import check_device_id
from center.stores.telemetry import ENVIRONMENT, SECOND_NS, Point, SeriesQuery
from center.times import now_ns
from drivers.base import QUANTITIES
from drivers.virtual import Virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


VIRTUAL_ID = "virtual_device"
DAYS = 7
STEP_S = 60
BATCH = 1440  # points asked about, and at most written, in one request


@dataclass(frozen=True, slots=True)
class Gap:
    """Minutes of [first_s, last_s) to fill, in Unix seconds, both whole minutes."""

    first_s: int
    last_s: int

    @property
    def points(self) -> int:
        return max((self.last_s - self.first_s) // STEP_S, 0)


def week_before(now_s: int) -> Gap:
    """The whole minutes of the last seven days."""
    last = now_s // STEP_S * STEP_S + STEP_S
    return Gap(last - DAYS * 86_400, last)


def batches(gap: Gap, from_s: int) -> Iterator[Gap]:
    """The rest of a gap from a moment on, in batches of at most BATCH points."""
    start = max(from_s, gap.first_s)
    while start < gap.last_s:
        stop = min(start + BATCH * STEP_S, gap.last_s)
        yield Gap(start, stop)
        start = stop


@cache
def _weather() -> Callable[[float], dict[str, float | int]]:
    return Virtual().values_at


def point_at(device_id: str, second: int) -> Point:
    """The weather of a moment as a point of the data model, rounded as a sensor would."""
    values: dict[str, float | int | str | bool] = {}
    tags = {"clientId": device_id, "device": device_id}
    for name, value in _weather()(second).items():
        quantity = QUANTITIES[name]
        values[name] = round(value) if quantity.kind == "integer" else round(float(value), quantity.decimals)
        if quantity.sensor_tag:
            tags[quantity.sensor_tag] = Virtual.sensor
    return Point(ENVIRONMENT, tags, values, second * SECOND_NS)


def fill(device_id: str, gap: Gap) -> int:
    """Write the points of a batch that are not there yet and return how many those were."""
    telemetry = current_center().telemetry
    query = SeriesQuery(device_id, gap.first_s * SECOND_NS, gap.last_s * SECOND_NS, fields=("Temperature",))
    minutes = set(range(gap.first_s, gap.last_s, STEP_S))
    for curve in telemetry.series(query):
        minutes -= {t // SECOND_NS // STEP_S * STEP_S for t in curve.times_ns}
    if minutes:
        telemetry.write([point_at(device_id, second) for second in sorted(minutes)])
    return len(minutes)


@pages.get("/virtual")
def virtual() -> str:
    center, now = current_center(), now_ns()
    values = center.telemetry.last_values([VIRTUAL_ID], since_ns=now - DAYS * 2 * 86_400 * SECOND_NS)
    seen = newest(values.get(VIRTUAL_ID))
    return render_template(
        "virtual.html",
        device_id=VIRTUAL_ID,
        device=center.registry.device(VIRTUAL_ID),
        seen=seen,
        state=state_of(seen, now),
        days=DAYS,
        points=DAYS * 86_400 // STEP_S,
    )


@pages.post("/virtual/fill")
@administrators_only
def virtual_fill() -> Any:
    """Fill the last seven days. A script asks batch by batch (`from`, Unix seconds) and draws the progress; without
    a script the whole week is written before the answer.
    """
    device_id = check_device_id(VIRTUAL_ID)
    registry = current_center().registry
    if registry.device(device_id) is None:
        with suppress(ConflictError):  # somebody registered it at this moment: then it is there
            registry.register(device_id, administrator=True)
    gap = week_before(now_ns() // SECOND_NS)
    from_s = request.form.get("from", 0, type=int)
    if wants_json():
        part = next(batches(gap, from_s), None)
        written = fill(device_id, part) if part else 0
        reached = part.last_s if part else gap.last_s
        return {
            "written": written,
            "next": reached,
            "done": gap.points - Gap(reached, gap.last_s).points,
            "total": gap.points,
            "finished": reached >= gap.last_s,
        }
    written = sum(fill(device_id, part) for part in batches(gap, 0))
    flash(f"{written} points written." if written else "Nothing was missing.", "success")
    return redirect(url_for("pages.virtual"))
