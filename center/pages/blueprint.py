"""The blueprint of the pages and what all share: who may see them, the menu, what is said when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from flask import Blueprint, Response, abort, current_app, flash, redirect, render_template, request, url_for
from flask_wtf.csrf import CSRFError, CSRFProtect, generate_csrf
from werkzeug.exceptions import HTTPException

from center import answers
from center.api.registration import configuration
from center.context import current_center
from center.errors import StoreError
from center.faults import log_once
from center.pages import presentation, roster
from center.pages.assets import asset_url, icon
from center.security import is_administrator, is_open, store_down
from center.stores.registry import Registered, check_device_id
from center.times import now_ns
from center.transfer import lighter

pages = Blueprint("pages", __name__, template_folder="templates")
pages.after_request(lighter)
csrf = CSRFProtect()

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@pages.after_app_request
def _policy(response: Response) -> Response:
    """Nothing inline, nothing from elsewhere, no plugin, no frame."""
    if response.status_code != 304 and response.mimetype != "application/json":  # neither is shown as a page
        response.headers.setdefault("Content-Security-Policy", POLICY)
    return response


def administrators_only(view: Callable[..., Any]) -> Callable[..., Any]:
    """Others are sent to the login and back here afterwards; a script gets 401."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs) if is_administrator() else _to_login()

    return guarded


def _to_login(said: str = "Log in as administrator for that.") -> Any:
    """Send a person to the login, and afterwards back here or to the page that a form was sent from; a script gets
    401.
    """
    if wants_json():
        return problem("Log in", "", 401, said="your session has ended: log in again")
    if request.path != "/":
        flash(said, "info")
    return redirect(url_for("pages.login", next=_way_back()))


def _way_back() -> str | None:
    """Path and query of this page, or of the page of this center that the form stands on."""
    if request.method == "GET":
        return request.full_path.rstrip("?")
    sent = urlsplit(request.referrer or "")
    return urlunsplit(("", "", sent.path, sent.query, "")) if sent.netloc == request.host else None


@pages.before_request
def _protect() -> Any:
    """Forged requests are refused; who is not logged in may look only where the settings say so. Then an id that no
    device can have is not found.
    """
    if request.is_json:  # Flask-WTF would take it for a form, of whatever shape it is
        abort(415, "pages take what their forms send; JSON is for the API")
    if current_app.config["WTF_CSRF_ENABLED"]:
        csrf.protect()
    public = request.endpoint == "pages.login" or current_center().settings.server.public_view
    if not public and not is_administrator():
        return _to_login()
    try:
        check_device_id((request.view_args or {}).get("device_id", "any"))
    except ValueError:
        abort(404)
    return None


def wants_json() -> bool:
    """Whether a script of a page asks, and not a person."""
    return request.headers.get("Accept") == "application/json"


@pages.errorhandler(CSRFError)
def _forged(error: CSRFError) -> Any:
    if not is_administrator():
        return _to_login("Your session has ended since the page was opened. Log in and send it once more.")
    text = "You have logged in anew since the page was opened. Go back, load the page again and send it once more."
    return problem("This form is out of date", text, 400, said=f"{error.description}: load the page again")


@pages.errorhandler(HTTPException)
def _refused(error: HTTPException) -> Any:
    if error.code in {301, 302, 303, 307, 308}:
        return error
    said = error.description or error.name
    text = f"{said.strip().rstrip('.')}."
    return problem(error.name, text[0].upper() + text[1:], error.code or 500, said=said)


@pages.app_errorhandler(404)
def _not_found(error: HTTPException) -> Any:
    text = "The address may be mistyped, or what it named has been removed."
    return problem("There is no such page", text, 404, said=error.description or error.name)


@pages.errorhandler(StoreError)
def _store_down(error: StoreError) -> Any:
    log_once(error)
    store_down()
    return problem("The store does not answer", str(error), 503)


def is_part() -> bool:
    """Whether the script of a page asks only for what changes in it: the `live` block, without the courses of a day."""
    return request.headers.get("X-Part") == "live"


def live_page(template: str, **values: Any) -> str:
    """A page, or its `live` block alone for static/live.js, which puts that into the page that is open."""
    if not is_part():
        return render_template(template, **values)
    found = current_app.jinja_env.get_template(template)
    current_app.update_template_context(values)
    return "".join(found.blocks["live"](found.new_context(values)))


def problem(title: str, text: str, status: int, *, said: str | None = None) -> Any:
    """A page that says what is wrong and what to do; JSON for a program, with what was `said`."""
    if answers.is_api() or wants_json():
        return answers.answer(status, said or text)
    return render_template("problem.html", title=title, text=text, retry=status == 503), status


@pages.app_context_processor
def _shared() -> dict[str, Any]:
    now, center = now_ns(), current_center()
    return {
        "asset_url": asset_url,
        "is_part": is_part,
        "now_ms": now // 1_000_000,
        "icon": icon,
        "csrf_token": generate_csrf,
        "store": center.settings.series_on,
        "bucket": center.telemetry.bucket,
        "failing": center.failing,
        "login_offered": not is_open(),
        "is_admin": is_administrator(),
        "called": roster.called,
        "suggestions": roster.suggestions,
        "look": presentation.look,
        "number": presentation.number,
        "with_unit": presentation.with_unit,
        "measured": presentation.measured,
        "span": presentation.span,
        "exact": lambda ns: presentation.exact(ns / 1e9),
        "moment": lambda ns, **how: presentation.moment(ns / 1e9 if ns is not None else None, now / 1e9, **how),
    }


def shown_once(registered: Registered) -> tuple[str, int]:
    """The page with the token of a registration."""
    token = registered.token.reveal()
    device_id = registered.device.id
    config = render_template("agent.toml.txt", device_id=device_id, token=token, **configuration(device_id))
    page = render_template("token.html", device=registered.device, new=registered.new, token=token, config=config)
    return page, 201 if registered.new else 200
