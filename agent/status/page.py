"""The local page: a snapshot and the last 24 h as HTML. Everything that comes from outside is escaped here."""

from __future__ import annotations

import time
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from agent.status.chart import svg
from agent.status.health_rules import ago, failing, problems
from agent.status.history import label
from drivers.base import QUANTITIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = Path(__file__).parent
NAMES = {"PressureSeaLevel": "Pressure at sea level", "DewPoint": "Dew point", "Lat": "Latitude", "Lon": "Longitude"}


@cache
def _template() -> Template:
    return Template((HERE / "templates/page.html").read_text("utf-8"))


def render(
    snapshot: Mapping[str, Any],
    series: Mapping[tuple[str, str], Sequence[tuple[int, float]]],
    unhealthy_after_s: float,
    now_boot_ns: int,
) -> str:
    """The whole page."""
    wrong = failing(snapshot, unhealthy_after_s, now_boot_ns)
    known = problems(snapshot)
    return _template().substitute(
        device=escape(str(snapshot.get("device_id", ""))),
        version=escape(str(snapshot.get("version", ""))),
        state="failing" if wrong else "ok",
        verdict="failing" if wrong else "works, with something to look at" if known else "works",
        problems=_problems(known or wrong),
        values=_values(snapshot.get("sensors", []), now_boot_ns),
        charts=_charts(series),
        rows="".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows(snapshot, now_boot_ns)),
    )


def rows(snapshot: Mapping[str, Any], now_boot_ns: int) -> list[tuple[str, str]]:
    """(what, in words): delivery, buffer, counters, clock, agent."""
    delivery, ledger, buffer = (snapshot.get(key) or {} for key in ("delivery", "ledger", "buffer"))
    found = [("Delivery", _delivery(delivery, now_boot_ns))]
    registration = snapshot.get("registration") or {}
    if registration.get("url"):
        found.append(("Server", f"{registration['url']}, bucket {registration.get('bucket')}"))
    if registration.get("state") not in (None, "registered"):
        found.append(("Registration", str(registration["state"])))
    waiting = f"{ledger.get('pending', 0):,} points wait"
    if buffer.get("pending_disk"):
        waiting += f", {buffer['pending_disk']:,} of them on disk ({buffer.get('disk_bytes', 0) / 1e6:.1f} MB)"
    if buffer.get("undated"):
        waiting += f"; {buffer['undated']:,} wait for the right time"
    if buffer.get("parked"):
        waiting += f"; {buffer['parked']:,} are parked"
    found.append(("Buffer", waiting))
    counts = (f"{ledger.get(key, 0):,} {key}" for key in ("measured", "delivered", "rejected", "dropped"))
    found.append(("Points", ", ".join(counts)))
    if ledger.get("unaccounted"):
        found.append(("Unaccounted", f"{ledger['unaccounted']:,} points"))
    found.append(("Clock", _clock(snapshot)))
    found.append(("Agent", f"runs for {ago(float(snapshot.get('uptime_s') or 0))}"))
    return found


def _delivery(delivery: Mapping[str, Any], now_boot_ns: int) -> str:
    text = str(delivery.get("state", "stopped"))
    last = delivery.get("last_success_boot_ns")
    text += f", last success {ago((now_boot_ns - last) / 1e9)} ago" if last is not None else ", no success yet"
    if delivery.get("state") == "failing" and delivery.get("next_attempt_s"):
        text += f", next attempt in {ago(float(delivery['next_attempt_s']))}"
    if delivery.get("backlog") and delivery.get("eta_s"):
        text += f", backlog gone in {ago(float(delivery['eta_s']))}"
    return text


def _clock(snapshot: Mapping[str, Any]) -> str:
    clock = snapshot.get("clock") or {}
    if not clock.get("good"):
        return "not known to be right yet: points wait for it"
    by = {"kernel": "synchronised", "servers": "agrees with the servers", "always": "taken as it is"}
    error = clock.get("error_ns")
    offset = clock.get("offset_ns")
    text = by.get(str(clock.get("evidence")), "right")
    if error is not None:
        text += f", within {error / 1e9:.3g} s"
    if offset is not None and clock.get("boot_ns") is None:
        text += time.strftime(", %Y-%m-%d %H:%M UTC", time.gmtime(float(snapshot.get("at") or time.time())))
    return text


def _problems(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<section class="problems" aria-labelledby="wrong"><h2 id="wrong">To look at</h2><ul>{items}</ul></section>'


def _values(sensors: Sequence[Mapping[str, Any]], now_boot_ns: int) -> str:
    parts = []
    for number, sensor in enumerate(sensors):
        parts.append(f'<section aria-labelledby="sensor{number}">')
        parts.append(f'<h2 id="sensor{number}">{escape(label(sensor))}: {escape(_freshness(sensor, now_boot_ns))}</h2>')
        stale = sensor.get("failing_since_boot_ns") is not None
        parts.append(f'<dl class="values{" stale" if stale else ""}">')
        for field, value in sensor.get("values", {}).items():
            quantity = QUANTITIES.get(field)
            unit, decimals = (quantity.unit, min(quantity.decimals, 4)) if quantity else ("", 2)
            parts.append(
                f"<div><dt>{escape(NAMES.get(field, field))}</dt>"
                f"<dd>{float(value):.{decimals}f} <small>{escape(unit)}</small></dd></div>"
            )
        parts.append("</dl></section>")
    return "".join(parts)


def _freshness(sensor: Mapping[str, Any], now_boot_ns: int) -> str:
    if sensor.get("boot_ns") is None:
        return f"{sensor.get('description', '')}, not read yet"
    return f"{sensor.get('description', '')}, {ago((now_boot_ns - sensor['boot_ns']) / 1e9)} ago"


def _charts(series: Mapping[tuple[str, str], Sequence[tuple[int, float]]]) -> str:
    figures = []
    several = len({sensor for sensor, _ in series}) > 1
    for (sensor, field), points in series.items():
        if not points or field in ("Lat", "Lon"):
            continue
        quantity = QUANTITIES.get(field)
        unit, decimals = (quantity.unit, quantity.decimals) if quantity else ("", 2)
        title = f"{NAMES.get(field, field)} in {unit}" + (f", {sensor}" if several else "")
        figures.append(
            f"<figure><figcaption>{escape(title)}</figcaption>{svg(points, title, min(decimals, 1))}</figure>"
        )
    if not figures:
        return ""
    return (
        '<section aria-labelledby="day"><h2 id="day">The last 24 hours, as far as the agent has run</h2>'
        f'<div class="charts">{"".join(figures)}</div></section>'
    )
