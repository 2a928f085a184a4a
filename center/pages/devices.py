"""One device: its page, giving it a new token, removing it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flask import abort, flash, redirect, render_template, request, url_for
from markupsafe import Markup

from center import profiles
from center.context import current_center
from center.documents import FieldsError
from center.errors import ConflictError
from center.pages import live, presentation
from center.pages.blueprint import administrators_only, pages, problem, shown_once
from center.pages.settings_form import REPORTS, entries, sent
from center.pages.states import (
    copies,
    counter_notices,
    judge,
    newest,
    patience,
    sensor_notices,
    shown,
    spark,
)
from center.stores.telemetry import (
    DAY_NS,
    HEALTH,
    HOUR_NS,
    LOOK_BACK_NS,
    Sensor,
    SeriesQuery,
    is_number,
    labels,
    several,
)
from center.tables import ordered
from center.times import now_ns


@pages.get("/devices/<device_id>")
def device(device_id: str, wrong: Mapping[str, str] | None = None) -> Any:
    """What a device is, its last values, the last 24 hours, a summary of every field, and its settings; `wrong`: what
    was just sent of these could not be kept.
    """
    center, now = current_center(), now_ns()
    registered = center.registry.device(device_id)
    values = center.telemetry.last_values([device_id], since_ns=now - LOOK_BACK_NS).get(device_id, ())
    if registered is None and not values:
        return problem(
            f"No device {device_id}",
            "It is not registered and nobody wrote a measurement under this id. Look for it in the list of devices.",
            404,
        )
    start = now - DAY_NS
    curves = center.telemetry.series(SeriesQuery(device_id, start, now, every_ns=HOUR_NS // 4)) if values else ()
    health = center.telemetry.last_values([device_id], measurement=HEALTH, since_ns=now - DAY_NS)
    summary = center.telemetry.summary(device_id, start_ns=start, stop_ns=now) if values else ()
    told = profiles.told_of(center.registry, device_id)
    profile = profiles.profile_of(center.registry, device_id)
    live.opened(device_id)
    patient = patience(profile, told, health.get(device_id, ()))
    lasts = shown(values, now, patient.stale_after_s)
    said = {v.field: v.value for v in health.get(device_id, ()) if v.sensor == Sensor()}
    twice = {"version", "address", "sensors", "interval"} if told else ()
    fields = ordered([*(v.field for v in values), *(row.field for row in summary)])
    seen = newest(values)
    sparks = {(c.field, c.sensor): spark(c, start, now) for c in curves if presentation.charted(c.field)}
    return render_template(
        "device.html",
        device_id=device_id,
        device=registered,
        state=judge(seen, now, patient.silent_after_s, registered=registered is not None),
        seen=seen,
        place={v.field: v.value for v in reversed(lasts) if v.field in {"Lat", "Lon"}},
        fields=fields,
        drawable=ordered(v.field for v in lasts if presentation.charted(v.field) and is_number(v.value)),
        tiles=[v for v in lasts if presentation.charted(v.field)],
        sparks=sparks,
        summary=sorted(summary, key=lambda row: (fields.index(row.field), row.sensor)),
        named=labels(summary) if several(summary) else {},
        stale_after=patient.stale_after_s,
        health=presentation.health({name: value for name, value in said.items() if name not in twice}),
        told=told,
        profile=profile,
        stamp=profiles.stamp(profile),
        entries=entries(profile, told, center.settings.devices, {v.field for v in lasts}),
        reports=REPORTS,
        wrong=wrong or {},
        health_at=newest(health.get(device_id)),
        notices=copies({device_id: told} if told else {}, now)
        + sensor_notices(health)
        + counter_notices({device_id: said}),
        settings=center.settings,
        bucket=center.telemetry.bucket,
    )


@pages.post("/devices/<device_id>/settings")
@administrators_only
def keep_settings(device_id: str) -> Any:
    """Keep what the form of the device's page holds."""
    center = current_center()
    if center.registry.device(device_id) is None:
        abort(404)
    try:
        wanted, kept = profiles.checked(sent(request.form)), profiles.profile_of(center.registry, device_id)
        if wanted != kept and request.form.get("stamp", "") not in ("", profiles.stamp(kept)):
            why = "Somebody else changed these settings meanwhile. Open the page anew to see them, or keep yours again."
            flash(why, "warning")
            return device(device_id, {"": why}), 409
        profiles.keep_profile(center.registry, device_id, wanted)
    except FieldsError as error:
        return device(device_id, error.each), 400
    told = profiles.told_of(center.registry, device_id)
    if told and told.refresh:
        latest = presentation.moment(time.time() + 1.1 * told.refresh, time.time())
        flash(Markup("Kept. The device asks for its settings {} at the latest, if it runs.").format(latest), "success")
    else:
        flash("Kept.", "success")
    return redirect(url_for("pages.device", device_id=device_id))


@pages.post("/devices/<device_id>/token")
@administrators_only
def new_token(device_id: str) -> Any:
    """Give a registered device a new token; the old one ends at once."""
    registry = current_center().registry
    if registry.device(device_id) is None:
        abort(404)
    try:
        return shown_once(registry.register(device_id, administrator=True))
    except ConflictError as error:
        flash(f"{error} Try again in a moment.", "warning")
        return redirect(url_for("pages.device", device_id=device_id))


@pages.post("/devices/<device_id>/remove")
@administrators_only
def remove(device_id: str) -> Any:
    """Remove the registration; measurements stay where they are."""
    registry = current_center().registry
    removed = registry.remove(device_id)
    profiles.forget(registry, device_id)  # also what is left where that failed before
    if removed:
        flash(f"{device_id} is removed and its token no longer works. Its measurements stay in the bucket.", "success")
    else:
        flash(f"{device_id} was not registered any more.", "info")
    return redirect(url_for("pages.devices"))
