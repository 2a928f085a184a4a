"""The pages: one blueprint, what all of them share, and the first and the last page of the menu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from flask import Blueprint, Flask, Response, current_app, render_template, request
from flask_wtf.csrf import CSRFError, CSRFProtect, generate_csrf
from werkzeug.exceptions import HTTPException

from center import answers
from center.context import current_center
from center.errors import StoreError
from center.pages import access, presentation
from center.pages.assets import PLOTLY_STYLE_HASHES, asset_url, assets, icon
from center.security import is_administrator, store_down
from center.stores.telemetry import DAY_NS, HEALTH, HOUR_NS, SECOND_NS, LastValue, Value
from center.times import now_ns
from drivers.base import QUANTITIES

if TYPE_CHECKING:
    from collections.abc import Mapping

pages = Blueprint("pages", __name__, template_folder="templates")
csrf = CSRFProtect()

RECENT = 8
ASKED = 200  # devices whose agents' health points the first page looks at
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {' '.join(PLOTLY_STYLE_HASHES)}",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_NAVIGATION = (
    ("Overview", (("home", "Home", "house"), ("devices", "Devices", "cpu"), ("dashboards", "Dashboard", "graph-up"))),
    (
        "Data",
        (
            ("query", "Query data", "search"),
            ("write", "Write data", "pencil-square"),
            ("virtual", "Virtual device", "cloud-sun"),
            ("buckets", "Buckets", "bucket"),
        ),
    ),
    (
        "Manage",
        (
            ("create", "Create device", "plus-circle"),
            ("keys", "Enrollment keys", "key"),
            ("help_page", "Help", "question-circle"),
        ),
    ),
)


# What the menu marks on the pages that it does not name.
_PARENTS = {
    "pages.device": "pages.devices",
    "pages.new_token": "pages.devices",
    "pages.dashboard": "pages.dashboards",
    "pages.flux": "pages.query",
}


@dataclass(frozen=True, slots=True)
class State:
    """Whether a device is heard of: `name` chooses the colour, `label` is what people read."""

    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should look at. `since_ns` where a time says more than words."""

    device_id: str
    text: str
    kind: str
    since_ns: int | None = None


def judge(last_ns: int | None, now: int, silent_after_s: float, *, registered: bool = True) -> State:
    """Live within `silent_after_s` of the last point, then silent; waiting before the first."""
    if last_ns is None:
        return State("waiting", "Waiting for data")
    if now - last_ns > silent_after_s * SECOND_NS:
        return State("silent", "Silent")
    return State("live", "Live") if registered else State("unregistered", "Not registered")


def state_of(last_ns: int | None, now: int, *, registered: bool = True) -> State:
    """As `judge`, with the silence that the settings allow."""
    return judge(last_ns, now, current_center().settings.devices.silent_after, registered=registered)


def is_number(value: object) -> TypeGuard[float]:
    """Whether this can be drawn; a boolean is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def newest(values: Mapping[str, LastValue] | None) -> int | None:
    """The time of the newest of these values."""
    return max((v.time_ns for v in values.values()), default=None) if values else None


def health_alerts(health: Mapping[str, Mapping[str, LastValue]]) -> list[Alert]:
    """What the agents' own health points say went wrong, for each device."""
    words = {
        "rejected": "{} points refused by the server and kept as dead letters: iot-agent rejected lists them",
        "dropped": "{} points dropped for want of room",
        "unaccounted": "{} points unaccounted for",
    }
    alerts = []
    for device_id, values in health.items():
        for field, text in words.items():
            value: Value | None = values[field].value if field in values else None
            if is_number(value) and value > 0:
                alerts.append(Alert(device_id, text.format(presentation.number(int(value))), "danger"))
        if "clock_good" in values and values["clock_good"].value == 0:
            alerts.append(Alert(device_id, "The clock is not synchronised: points wait for their time", "danger"))
    return alerts


def init_app(app: Flask) -> None:
    """Register the pages, their assets, forgery protection and the administrator's login with the application."""
    from center.pages import admin, dashboard, data, devices, virtual  # noqa: F401, PLC0415 - they add routes

    app.config.setdefault("WTF_CSRF_CHECK_DEFAULT", False)  # the API has no session: pages check in _protect()
    app.config.setdefault("WTF_CSRF_TIME_LIMIT", None)  # as long as the session: dashboards stay open for days
    csrf.init_app(app)
    app.after_request(_policy)
    app.register_blueprint(assets)
    app.register_blueprint(pages)


def _policy(response: Response) -> Response:
    """Nothing inline, nothing from elsewhere, no plugin, no frame; the two hashes are plotly's own style sheets."""
    response.headers.setdefault("Content-Security-Policy", POLICY)
    return response


@pages.before_request
def _protect() -> Any:
    """Forged requests are refused; who is not logged in may look only where the settings say so."""
    if request.method not in {"GET", "HEAD", "OPTIONS"} and current_app.config["WTF_CSRF_ENABLED"]:
        csrf.protect()
    if request.endpoint == "pages.login" or is_administrator() or current_center().settings.server.public_view:
        return None
    return access.to_login()


@pages.after_request
def _never_cached(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def wants_json() -> bool:
    """Whether a script of a page asks, and not a person."""
    return request.headers.get("Accept") == "application/json"


@pages.errorhandler(CSRFError)
def _forged(error: CSRFError) -> Any:
    if wants_json():
        return answers.answer(400, f"{error.description}: load the page again")
    text = "Your session has ended since the page was opened. Go back, load the page again and send it once more."
    return problem("This form is out of date", text, 400)


@pages.errorhandler(HTTPException)
def _refused(error: HTTPException) -> Any:
    if wants_json():
        return answers.answer(error.code or 500, error.description or error.name)
    if error.code in {301, 302, 303, 307, 308}:
        return error
    text = f"{(error.description or error.name).strip().rstrip('.')}."
    return problem(error.name, text[0].upper() + text[1:], error.code or 500)


@pages.app_errorhandler(404)
def _not_found(error: HTTPException) -> Any:
    if answers.is_api():
        return answers.answer(404, error.description or error.name)
    return problem("There is no such page", "The address may be mistyped, or what it named has been removed.", 404)


@pages.errorhandler(StoreError)
def _store_down(error: StoreError) -> Any:
    current_app.logger.warning("store: %s", error)
    store_down()
    if wants_json():
        return answers.answer(503, str(error))
    return problem("The store does not answer", str(error), 503)


def problem(title: str, text: str, status: int) -> tuple[str, int]:
    """A page that says what is wrong and what to do."""
    return render_template("problem.html", title=title, text=text), status


@pages.app_context_processor
def _shared() -> dict[str, Any]:
    now = now_ns()
    return {
        "asset_url": asset_url,
        "icon": icon,
        "csrf_token": generate_csrf,
        "navigation": [(group, [(f"pages.{e}", *rest) for e, *rest in links]) for group, links in _NAVIGATION],
        "here": _PARENTS.get(request.endpoint or "", request.endpoint),
        "store": store_badge(),
        "login_offered": access.login_offered(),
        "is_admin": is_administrator(),
        "look": presentation.look,
        "number": presentation.number,
        "with_unit": presentation.with_unit,
        "span": presentation.span,
        "exact": lambda ns: presentation.exact(ns / 1e9),
        "moment": lambda ns, **how: presentation.moment(ns / 1e9 if ns is not None else None, now / 1e9, **how),
    }


def store_badge() -> dict[str, str]:
    telemetry = current_center().telemetry
    if telemetry.embedded:
        return {"label": "Embedded store", "explanation": "Data are kept in one SQLite file: for laptops, demos, tests"}
    return {"label": "InfluxDB", "explanation": f"Data are kept in InfluxDB, bucket {telemetry.bucket}"}


@pages.get("/")
def home() -> str:
    """What is connected, when it was last heard of, and what needs attention."""
    center, now = current_center(), now_ns()
    registered = {d.id: d for d in center.registry.devices().devices}
    seen = center.telemetry.last_seen(since_ns=now - 30 * DAY_NS)
    states = {i: state_of(seen.get(i), now) for i in registered}
    strangers = {i: at for i, at in seen.items() if i not in registered}
    recent = sorted((i for i in registered if i in seen), key=lambda i: -seen[i])[:RECENT]
    silent = [Alert(i, "Silent", "warning", seen.get(i)) for i, state in states.items() if state.name == "silent"]
    talking = sorted((i for i in registered if seen.get(i, 0) > now - DAY_NS), key=lambda i: -seen[i])[:ASKED]
    health = center.telemetry.last_values(talking, measurement=HEALTH, since_ns=now - DAY_NS)
    return render_template(
        "home.html",
        total=len(registered),
        counts={name: sum(s.name == name for s in states.values()) for name in ("live", "silent", "waiting")},
        alerts=health_alerts(health) + sorted(silent, key=lambda a: -(a.since_ns or 0)),
        recent=[(i, states[i], seen[i]) for i in recent],
        values=center.telemetry.last_values(recent, since_ns=now - 30 * DAY_NS) if recent else {},
        sparks=temperature_sparks(recent, now),
        strangers=sorted(strangers.items(), key=lambda item: -item[1])[:RECENT],
        ordered=presentation.ordered,
        silent_after=center.settings.devices.silent_after,
    )


def temperature_sparks(device_ids: list[str], now: int) -> dict[str, Any]:
    """A day of temperature for each device, drawn."""
    if not device_ids:
        return {}
    start = now - DAY_NS
    curves = current_center().telemetry.sparklines(
        device_ids, "Temperature", start_ns=start, stop_ns=now, every_ns=HOUR_NS // 2
    )
    return {i: spark(c.times_ns, c.values, "Temperature", start, now) for i, c in curves.items()}


def spark(times_ns: Any, values: Any, field: str, start: int, stop: int) -> Any:
    """A curve as a sparkline; what is not a number is left out."""
    points = [(at / 1e9, float(v)) for at, v in zip(times_ns, values, strict=True) if is_number(v)]
    return presentation.sparkline(points, field, start / 1e9, stop / 1e9)


@pages.get("/help")
def help_page() -> str:
    center = current_center()
    return render_template(
        "help.html",
        base=request.url_root.rstrip("/"),
        bucket=center.telemetry.bucket,
        quantities=QUANTITIES.values(),
        silent_after=center.settings.devices.silent_after,
    )
