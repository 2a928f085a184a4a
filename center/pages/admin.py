"""The administrator: logging in and out, and the enrollment keys that let devices register."""

from __future__ import annotations

from typing import Any

from flask import abort, flash, redirect, render_template, request, url_for
from flask_login import current_user, login_user, logout_user
from werkzeug.exceptions import TooManyRequests

from agent.util.secret import Secret
from center.context import current_center
from center.pages.blueprint import administrators_only, pages
from center.pages.forms import Login, MakeKey
from center.security import check_password, is_administrator
from center.stores.registry import EnrollmentKey
from center.stores.telemetry import DAY_NS
from center.times import now_ns


@pages.route("/login", methods=["GET", "POST"])
def login() -> Any:
    """The password; too many wrong ones have to wait."""
    target = safe_target(request.args.get("next")) or url_for("pages.home")
    if is_administrator():
        return redirect(target)
    form = Login()
    status = 200
    if form.validate_on_submit():
        try:
            user = check_password(Secret(form.password.data))
        except TooManyRequests as error:
            user, status = None, 429
            form.password.errors = [f"{str(error.description).capitalize()}."]
        else:
            form.password.errors = [] if user else ["That is not the administrator's password."]
        if user:
            login_user(user)
            return redirect(target)
    if form.errors and status == 200:
        status = 400
    public_view = current_center().settings.server.public_view
    page = render_template("login.html", form=form, public_view=public_view)
    return page, status, {"Retry-After": "60"} if status == 429 else {}


def safe_target(target: str | None) -> str | None:
    """The path, if it stays on this center: one slash first, no second one, no backslash, nothing unprintable."""
    if target and target.startswith("/") and target[1:2] not in {"/", "\\"} and "\\" not in target:
        return target if target.isprintable() else None
    return None


@pages.post("/logout")
def logout() -> Any:
    """Ends the session for every copy of its cookie."""
    if current_user.is_authenticated:
        current_center().registry.end_session(current_user.session)
    logout_user()
    flash("You are logged out.", "success")
    return redirect(url_for("pages.home"))


@pages.route("/enrollment-keys", methods=["GET", "POST"])
@administrators_only
def keys() -> Any:
    """The enrollment keys; a new one is shown once."""
    registry, now = current_center().registry, now_ns()
    form = MakeKey()
    made = secret = None
    if form.validate_on_submit():
        made, secret = registry.make_enrollment_key(
            note=(form.note.data or "").strip(), uses=form.uses.data, expires_ns=now + form.days.data * DAY_NS
        )
        form = MakeKey(formdata=None)
    status = 201 if made else 400 if form.errors else 200
    page = render_template(
        "keys.html",
        form=form,
        made=made,
        secret=secret.reveal() if secret else None,
        keys=[(key, _standing(key, now)) for key in registry.enrollment_keys()],
    )
    return page, status


def _standing(key: EnrollmentKey, now: int) -> tuple[str, str]:
    if key.revoked:
        return "waiting", "Revoked"
    if key.uses is not None and key.used >= key.uses:
        return "waiting", "Used up"
    return ("live", "Valid") if key.valid(now) else ("silent", "Expired")


@pages.post("/enrollment-keys/<key_id>/revoke")
@administrators_only
def revoke_key(key_id: str) -> Any:
    if not current_center().registry.revoke_enrollment_key(key_id):
        abort(404)
    flash("The key is revoked: no device can register with it any more. Devices that did keep working.", "success")
    return redirect(url_for("pages.keys"))
