"""What the pages ask about the visitor: may they change things, and where they go to log in."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from flask import abort, flash, redirect, request, url_for

from center.security import is_administrator, is_open

if TYPE_CHECKING:
    from collections.abc import Callable


def administrators_only(view: Callable[..., Any]) -> Callable[..., Any]:
    """Others are sent to the login and back here afterwards; a script gets 401."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs) if is_administrator() else to_login()

    return guarded


def to_login() -> Any:
    """Send a person to the login and back here afterwards; a script gets 401."""
    if request.headers.get("Accept") == "application/json":
        abort(401)
    if request.path != "/":
        flash("Log in as administrator for that.", "info")
    back = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("pages.login", next=back))


def login_offered() -> bool:
    """Whether there is a password to log in with."""
    return not is_open()


def safe_target(target: str | None) -> str | None:
    """The path, if it stays on this center: one slash first, no second one, no backslash, nothing unprintable."""
    if target and target.startswith("/") and target[1:2] not in {"/", "\\"} and "\\" not in target:
        return target if target.isprintable() else None
    return None
