"""The first page and the last of the menu: what is connected and what needs attention; help."""

from __future__ import annotations

from typing import Any

from flask import render_template, request

from center.alerts import kept
from center.alerts.rules import said
from center.context import Center, current_center
from center.pages import live
from center.pages.blueprint import is_part, live_page, pages
from center.pages.roster import people
from center.pages.states import (
    WAITING_NS,
    Notice,
    copies,
    counter_notices,
    judge,
    patience,
    patience_s,
    sensor_notices,
    shown,
    temperature_sparks,
)
from center.profiles import told
from center.stores.telemetry import DAY_NS, HEALTH
from center.times import now_ns
from drivers.base import QUANTITIES

RECENT = 8
ASKED = 200  # devices whose agents' words on their sensors the first page looks at; it knows all their counters


@pages.get("/")
def home() -> str:
    """What is connected, when it was last heard of, and what needs attention."""
    center, now = current_center(), now_ns()
    registered = {d.id: d for d in center.registry.devices().devices}
    seen = {i: at for i, at in live.seen().items() if at >= now - WAITING_NS}
    known, heard = people(), told(center.registry)
    states = {i: judge(seen.get(i), now, patience_s(known.get(i), heard.get(i))) for i in registered}
    strangers = {i: at for i, at in seen.items() if i not in registered}
    recent = sorted(sorted((i for i in registered if i in seen), key=lambda i: -seen[i])[:RECENT])  # in a lasting order
    silent = [Notice(i, "Silent", "warning", seen.get(i)) for i, state in states.items() if state.name == "silent"]
    talking = sorted((i for i in registered if seen.get(i, 0) > now - DAY_NS), key=lambda i: -seen[i])
    health = center.telemetry.last_values(talking[:ASKED], measurement=HEALTH, since_ns=now - DAY_NS)
    values = center.telemetry.last_values(recent, since_ns=now - WAITING_NS)
    stale_after = {i: patience(known.get(i), heard.get(i), health.get(i, ())).stale_after_s for i in recent}
    return live_page(
        "home.html",
        total=len(registered),
        counts={name: sum(s.name == name for s in states.values()) for name in ("live", "silent", "waiting")},
        notices=_fired(center)
        + copies({i: said for i, said in heard.items() if i in registered}, now)
        + sensor_notices(health)  # which end; counters never go back
        + counter_notices({i: said for i, said in sorted(live.healths().items()) if i in registered})
        + sorted(silent, key=lambda a: -(a.since_ns or 0)),
        asked=ASKED if len(talking) > ASKED else None,
        recent=[(i, states[i], seen[i]) for i in recent],
        values={i: shown(v, now, stale_after[i]) for i, v in values.items()},
        stale_after=stale_after,
        sparks=temperature_sparks(recent, now) if not is_part() else {},
        strangers=sorted(strangers.items(), key=lambda item: -item[1])[:RECENT],
        silent_after=center.settings.devices.silent_after,
    )


def _fired(center: Center) -> list[Notice]:
    """What rules say, until somebody has seen it; the newest first."""
    unseen = kept.unseen(center.registry)
    rules = kept.rules(center.registry) if unseen else {}
    found = [
        Notice(
            key.device,
            " ".join(filter(None, (f"{rules[i].name}:", key.whose, said(rules[i], state.value)))),
            "alert",
            state.since_ns,
        )
        for i, states in unseen.items()
        for key, state in states.items()
        if i in rules
    ]
    return sorted(found, key=lambda notice: -(notice.since_ns or 0))


@pages.get("/live.json")
def heartbeat() -> Any:
    """Whether all is well, for the script of every page: the time (Unix ms) by the center's clock. 401 once the session
    is over, 503 while the store is away.
    """
    live.look(live.NOBODY)
    return {"now": now_ns() // 1_000_000}


@pages.get("/help")
def help_page() -> str:
    center = current_center()
    return render_template(
        "help.html",
        base=request.url_root.rstrip("/"),
        quantities=QUANTITIES.values(),
        silent_after=center.settings.devices.silent_after,
    )
