"""The virtual device: a week of weather without a sensor, written in batches so that a page can show the progress."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from flask import flash, redirect, render_template, request, url_for

from center.context import current_center
from center.errors import ConflictError
from center.pages.blueprint import administrators_only, pages, wants_json
from center.pages.states import judge, newest, patience_s
from center.stores.telemetry import ENVIRONMENT, SECOND_NS, Point, SeriesQuery
from center.times import now_ns
from drivers.base import QUANTITIES
from drivers.virtual import Virtual

VIRTUAL_ID = "virtual_device"
DAYS = 7
STEP_S = 60
WEATHER = Virtual()
BATCH = 1440  # points asked about, and at most written, in one request


def week_before(now_s: int) -> range:
    """The whole minutes of the last seven days, in Unix seconds."""
    last = now_s // STEP_S * STEP_S + STEP_S
    return range(last - DAYS * 86_400, last, STEP_S)


def point_at(device_id: str, second: int) -> Point:
    """The weather of a moment as a point of the data model, rounded as a sensor would."""
    values: dict[str, float | int | str | bool] = {}
    tags = {"clientId": device_id, "device": device_id}
    for name, value in WEATHER.values_at(second).items():
        quantity = QUANTITIES[name]
        values[name] = round(value) if quantity.kind == "integer" else round(float(value), quantity.decimals)
        if quantity.sensor_tag:
            tags[quantity.sensor_tag] = Virtual.sensor
    return Point(ENVIRONMENT, tags, values, second * SECOND_NS)


def fill(minutes: range) -> int:
    """Write the points of these minutes that are not there yet and return how many those were."""
    telemetry = current_center().telemetry
    query = SeriesQuery(VIRTUAL_ID, minutes.start * SECOND_NS, minutes.stop * SECOND_NS, fields=("Temperature",))
    there = {t // SECOND_NS // STEP_S * STEP_S for curve in telemetry.series(query) for t in curve.times_ns}
    missing = [minute for minute in minutes if minute not in there]
    if missing:
        telemetry.write([point_at(VIRTUAL_ID, minute) for minute in missing])
    return len(missing)


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
        state=judge(seen, now, patience_s()),
        days=DAYS,
        points=DAYS * 86_400 // STEP_S,
    )


@pages.post("/virtual/fill")
@administrators_only
def virtual_fill() -> Any:
    """Fill the last seven days. A script asks batch by batch (`from`, Unix seconds) and draws the progress; without
    a script the whole week is written before the answer.
    """
    registry = current_center().registry
    if registry.device(VIRTUAL_ID) is None:
        with suppress(ConflictError):  # somebody registered it at this moment: then it is there
            registry.register(VIRTUAL_ID, administrator=True)
    minutes = week_before(now_ns() // SECOND_NS)
    if wants_json():
        done = min(max(request.form.get("from", 0, type=int) - minutes.start, 0) // STEP_S, len(minutes))
        part = minutes[done : done + BATCH]
        return {
            "written": fill(part) if part else 0,
            "next": part.stop,
            "done": done + len(part),
            "total": len(minutes),
            "finished": done + len(part) == len(minutes),
        }
    written = sum(fill(minutes[n : n + BATCH]) for n in range(0, len(minutes), BATCH))
    flash(f"{written} points written." if written else "Nothing was missing.", "success")
    return redirect(url_for("pages.virtual"))
