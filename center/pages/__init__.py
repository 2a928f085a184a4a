"""The pages where people look at their sensors and manage them."""

from __future__ import annotations

from flask import Flask

from center.pages import adding, admin, alerts, dashboard, data, devices, fleet, home, live, virtual  # noqa: F401 - they add routes
from center.pages.assets import assets
from center.pages.blueprint import csrf, pages
from center.tables import seen


def init_app(app: Flask) -> None:
    """Register the pages, their assets, forgery protection and the administrator's login with the application."""
    app.jinja_options = app.jinja_options | {"finalize": seen}  # whatever a template shows
    app.config.setdefault("WTF_CSRF_CHECK_DEFAULT", False)  # the API has no session: pages check in _protect()
    app.config.setdefault("WTF_CSRF_TIME_LIMIT", None)  # as long as the session: dashboards stay open for days
    csrf.init_app(app)
    live.init_app(app)
    app.register_blueprint(assets)
    app.register_blueprint(pages)
