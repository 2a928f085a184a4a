"""Many devices: the list by state, group, sensor and version, what is done to several at once, and how the fleet is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from flask import flash, redirect, render_template, request, url_for

from agent.config.units import rough_duration
from center.context import current_center
from center.documents import FieldsError
from center.pages import live
from center.pages.blueprint import administrators_only, is_part, live_page, pages
from center.pages.presentation import points, span
from center.pages.roster import SORTS, Entry, Wanted, called, natural, roster, suggestions
from center.pages.settings_form import sent
from center.pages.states import judge, newest, shown, stale_after_s, temperature_sparks
from center.profiles import Profile, checked, forget, keep_profile, profiles
from center.stores.telemetry import DAY_NS, HEALTH, LOOK_BACK_NS
from center.times import now_ns

PER_PAGE = 50
WORST = 8
UNSURE_S = 0.5
WAITS_S = 60.0  # a point that is not that old is on its way
AT_ONCE = 1000  # devices that are changed in one request


@pages.get("/devices")
def devices() -> str:
    """Fifty devices a page with state, sensor, last values and the course of the day."""
    center, now = current_center(), now_ns()
    wanted, everybody = Wanted.of(request.args), roster(now)
    found = wanted.choose(everybody)
    page = min(max(request.args.get("page", 1, type=int), 1), 1_000_000)
    here = found[(page - 1) * PER_PAGE : page * PER_PAGE]
    ids = [entry.id for entry in here]
    values = center.telemetry.last_values(ids, since_ns=now - LOOK_BACK_NS) if ids else {}
    health = center.telemetry.last_values(ids, measurement=HEALTH, since_ns=now - DAY_NS) if ids else {}
    stale_after = {e.id: stale_after_s(health.get(e.id, ()), e.fades_s) for e in here}
    return live_page(
        "devices.html",
        devices=here,
        values={i: shown(v, now, stale_after[i]) for i, v in values.items()},
        stale_after=stale_after,
        states={e.id: judge(newest(values.get(e.id)), now, e.silent_after_s) for e in here},
        seen={i: newest(values.get(i)) for i in ids},
        kinds={i: sorted({v.sensor.kind for v in values.get(i, ()) if v.sensor.kind}) for i in ids},
        sparks=temperature_sparks(ids, now) if not is_part() else {},
        total=len(found),
        registered=len(everybody),
        page=page,
        last_page=max((len(found) + PER_PAGE - 1) // PER_PAGE, 1),
        wanted=wanted,
        choices=_choices(everybody),
        groups=sorted({entry.group for entry in everybody} - {""}),
        sorts={key: label for key, (label, _) in SORTS.items()},
        at_once=AT_ONCE,
    )


def _choices(entries: list[Entry]) -> dict[str, dict[str, str]]:
    """What the list can be narrowed to: values and their labels, by the name of the filter. None where all devices have
    one and the same.
    """
    found = {
        "state": {(e.state.name, e.state.label) for e in entries},
        "group": {(e.group, e.group) for e in entries},
        "sensor": {(kind, kind) for e in entries for kind in e.kinds or [""]},
        "version": {(e.version, e.version) for e in entries},
    }
    return {
        name: dict(sorted((pair for pair in pairs if pair[0]), key=lambda pair: natural(pair[1])))
        if len(pairs) > 1
        else {}
        for name, pairs in found.items()
    }


@pages.get("/devices.json")
def suggested() -> Any:
    """Devices to choose from, by a part of their name or id."""
    found = suggestions(request.args.get("search", "").strip()[:64])
    return {"devices": [{"id": device_id, "name": name} for device_id, name in found]}


@pages.post("/devices/several")
@administrators_only
def several() -> Any:
    """Set the group or the interval of the devices that are named, or of `all` that the address finds; or remove them,
    which is asked first.
    """
    registry, form, wanted = current_center().registry, request.form, Wanted.of(request.args)
    do, registered = form.get("do", ""), {device.id for device in registry.devices().devices}
    if form.get("all"):
        ids = [entry.id for entry in wanted.choose(roster(now_ns()))]
    else:
        ids = [i for i in dict.fromkeys(form.getlist("id")) if i in registered or do == "removed"]
    if not ids or len(ids) > AT_ONCE:
        flash(f"Choose 1 to {AT_ONCE} devices first.", "info")
    elif do == "remove":
        return render_template("remove_several.html", ids=ids, wanted=wanted)
    elif do == "removed":
        removed = [device_id for device_id in ids if registry.remove(device_id)]
        for device_id in ids:  # also what is left where that failed before
            forget(registry, device_id)
        if removed:
            flash(f"{_counted(removed)} removed. What was measured stays in the bucket.", "success")
        else:
            flash("They were removed already.", "info")
    elif do not in {"group", "interval"}:
        flash("Choose what to do with them.", "info")
    else:
        _set(ids, do, form.get(do, ""))
    return redirect(f"{url_for('pages.devices')}?{urlencode(wanted.said)}")


@pages.get("/fleet")
def fleet() -> str:
    """How many devices are well, which versions there are, and which agents have most to complain of."""
    entries = roster(now_ns())
    known = {entry.id for entry in entries}
    healths = {i: said for i, said in live.healths().items() if i in known}

    def most(*fields: str) -> list[tuple[str, list[float]]]:
        """The devices with the most of these, and how much of each."""
        told = [(i, [said.get(field, 0) for field in fields]) for i, said in healths.items()]
        return sorted((one for one in told if sum(one[1]) > 0), key=lambda one: -sum(one[1]))[:WORST]

    backlogs = [
        (
            i,
            said["oldest_age"],
            f"{points(int(said.get('pending', 0)))}, for {rough_duration(said['oldest_age'])}",
        )
        for i, said in healths.items()
        if said.get("oldest_age", 0) >= WAITS_S
    ]
    clocks = [
        (i, said.get("clock_good") == 0, said.get("clock_error_s", 0))
        for i, said in healths.items()
        if said.get("clock_good") == 0 or said.get("clock_error_s", 0) >= UNSURE_S
    ]
    return live_page(
        "fleet.html",
        total=len(entries),
        counts=Counter(entry.state.name for entry in entries),
        versions=sorted(Counter(entry.version for entry in entries).items(), key=lambda v: natural(v[0]), reverse=True),
        told=bool(healths),
        backlogs=sorted(backlogs, key=lambda backlog: -backlog[1])[:WORST],
        lost=most("rejected", "dropped"),
        clocks=sorted(clocks, key=lambda clock: (not clock[1], -clock[2]))[:WORST],
        silent_after=current_center().settings.devices.silent_after,
    )


def _counted(ids: list[str]) -> str:
    return f"{called(ids[0])} is" if len(ids) == 1 else f"{len(ids)} devices are"


def _set(ids: list[str], what: str, typed: str) -> None:
    """The group, or the interval, of these devices; "" takes it away."""
    registry = current_center().registry
    try:
        wanted = checked(sent({"group" if what == "group" else "settings.interval": typed}))
        interval, known = wanted.settings.interval, profiles(registry)
        for device_id in ids:
            old = known.get(device_id, Profile())
            settings = replace(old.settings, interval=interval)
            new = replace(old, group=wanted.group) if what == "group" else replace(old, settings=settings)
            keep_profile(registry, device_id, new)
    except FieldsError as error:
        flash(f"Not set: {error}.", "danger")
    else:
        if what == "group":
            said = f"in the group {wanted.group}" if wanted.group else "in no group"
        else:
            said = f"asked to report every {span(interval)}" if interval else "asked for no interval of their own"
        flash(f"{_counted(ids)} {said}.", "success")
