"""Dashboards: gauges, charts of every field and of what is computed from them, live data."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import abort, redirect, render_template, request, url_for

from center.context import current_center
from center.errors import RefusedError
from center.pages import computed, live, presentation, series
from center.pages.blueprint import pages
from center.pages.forms import MAX_DEVICES, RANGES
from center.pages.roster import suggestions
from center.pages.states import judge, newest, patience, shown
from center.profiles import profile_of, told_of
from center.stores.telemetry import DAY_NS, HEALTH, LOOK_BACK_NS, is_number
from center.tables import ordered
from center.times import now_ns

MS_NS = 1_000_000
FIRST_FIELDS = 2  # come with the page: a phone shows no more at once
FIRST_WIDTH = 400  # pixels


@pages.get("/dashboards")
def dashboards() -> Any:
    """The dashboard of the `device` that is asked for by its name or id, with what else the address says; else of the
    one heard of last; a page that says what to do when there is none.
    """
    center, now = current_center(), now_ns()
    if wanted := request.args.get("device", "").strip():
        view = urlencode([(name, value) for name, value in request.args.items(multi=True) if name != "device"])
        return redirect(f"{url_for('pages.dashboard', device_id=_found(wanted))}{view and f'?{view}'}")
    seen = center.telemetry.last_seen(since_ns=now - DAY_NS) or center.telemetry.last_seen(since_ns=now - LOOK_BACK_NS)
    if seen:
        return redirect(url_for("pages.dashboard", device_id=max(seen, key=seen.__getitem__)))
    return render_template("dashboard_empty.html")


def _found(wanted: str) -> str:
    """The id of the device that is called so, or of one that has that in its name or id; else what may be an id."""
    return next((device_id for device_id, _ in suggestions(wanted)), wanted)


@pages.get("/dashboards/<device_id>")
def dashboard(device_id: str) -> str:
    center, now = current_center(), now_ns()
    values = center.telemetry.last_values([device_id], since_ns=now - LOOK_BACK_NS).get(device_id, ())
    registered = center.registry.device(device_id)
    if registered is None and not values:
        abort(404)
    health = center.telemetry.last_values([device_id], measurement=HEALTH, since_ns=now - DAY_NS).get(device_id, ())
    profile, told = profile_of(center.registry, device_id), told_of(center.registry, device_id)
    live.opened(device_id)
    patient = patience(profile, told, health)
    seen, lasts = newest(values), shown(values, now, patient.stale_after_s)
    drawable = [v for v in lasts if presentation.charted(v.field) and is_number(v.value)]
    chosen = request.args.get("range", "24h")
    fields = ordered(v.field for v in drawable)
    more = computed.computable(fields)
    return render_template(
        "dashboard.html",
        device_id=device_id,
        state=judge(seen, now, patient.silent_after_s, registered=registered is not None),
        seen=seen,
        values=drawable,
        stale_after=patient.stale_after_s,
        fields=fields,
        computed=more,
        first=_first(device_id, [*fields, *more]),
        place={v.field: v for v in reversed(lasts) if v.field in {"Lat", "Lon"}},
        ranges={key: label for key, (label, _) in RANGES.items()} | {"all": "All time"},
        chosen=chosen if chosen in {*RANGES, "all"} else "24h",
        most=MAX_DEVICES,
    )


def _first(device_id: str, fields: list[str]) -> dict[str, Any] | None:
    """What the first charts draw, with the page and so a round trip earlier. None where the address is wrong: what is
    asked for next says so.
    """
    shown = ([f for f in request.args.getlist("field") if f in fields] or fields)[:FIRST_FIELDS]
    try:
        return {"fields": shown, **series.answer([device_id], fields=shown, width=FIRST_WIDTH)} if shown else None
    except RefusedError:
        return None


@pages.get("/dashboards/<device_id>/series.json")
def series_json(device_id: str) -> Any:
    return series.answer([device_id])


@pages.get("/dashboards/<device_id>/live.json")
def live_json(device_id: str) -> Any:
    """The last values if they are recent, when they were measured (Unix ms), how old they may be (s), and the device's
    state.
    """
    now, looked = now_ns(), live.look(device_id)
    state = judge(looked.seen, now, looked.patience.silent_after_s, registered=looked.registered)
    return {
        "last": [
            {
                "field": v.field,
                "sensor": v.sensor.label,
                "key": v.key,
                "value": v.value,
                "text": presentation.number(v.value, v.field),
                "time": v.time_ns // MS_NS,
            }
            for v in shown(looked.values, now)
        ],
        "stale_after": looked.patience.stale_after_s,
        "seen": looked.seen // MS_NS if looked.seen is not None else None,
        "state": {"name": state.name, "label": state.label},
    }


@pages.get("/dashboards/<device_id>/data.csv")
def series_csv(device_id: str) -> Any:
    return series.table([device_id])
