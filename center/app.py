"""create_app(settings): the Flask application; serve(): the same under waitress, in a thread."""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import resource
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from flask import Flask, Response, jsonify, request
from flask.json.provider import DefaultJSONProvider
from waitress import wasyncore
from werkzeug.middleware.proxy_fix import ProxyFix

from agent.util.loops import LoopThread
from agent.util.secret import Secret
from center import answers, guard, pages, security
from center.alerts.watch import Watch
from center.api import alerts, forwarding, registration, telemetry
from center.context import EXTENSION, Center, client_gone, current_center
from center.embedded import registry as embedded_registry
from center.embedded import schema as embedded_schema
from center.embedded import write_api
from center.embedded.database import Database
from center.embedded.registry import EmbeddedRegistry
from center.embedded.telemetry import EmbeddedTelemetry
from center.errors import SettingsError, StoreError
from center.faults import log_once
from center.server import OWING, OWING_EACH, Server
from center.settings import Settings, check
from center.settings_files import load
from center.stores.registry import Registry
from center.stores.telemetry import Telemetry
from center.victoria.client import Victoria
from center.victoria.telemetry import VictoriaTelemetry

log = logging.getLogger(__name__)
GRACE_S = 5.0
FILE = "iot-center.sqlite3"


def create_app(settings: Settings | None = None) -> Flask:
    """The application; without settings (`flask --app center.app run`) those of center.toml and the environment.

    Opens the stores: `app.extensions[EXTENSION]` is a Center, which the caller closes. A store that is away is none of
    the errors. Raises SettingsError, StoreError.
    """
    if settings is None:
        settings = load()
        if os.environ.get("IOT_CENTER_EMBEDDED"):
            settings = replace(settings, embedded=True)
    app = Flask(__name__)
    json = DefaultJSONProvider(app)
    json.sort_keys = json.ensure_ascii = False
    app.json = json
    center = open_stores(settings)
    session_key = settings.server.session_key
    if isinstance(center.registry, EmbeddedRegistry):
        session_key = session_key or center.registry.session_key()
    if settings.series_on == "embedded":
        app.register_blueprint(write_api.blueprint)
    else:
        app.add_url_rule("/health", "health", _health)
    if settings.series_on == "victoria":
        app.register_blueprint(forwarding.blueprint)
    password_hash = None
    try:
        password_hash = center.registry.password_hash()
        security.check_bind(settings, password_hash)
    except StoreError as error:  # it starts all the same: pages say what is wrong, until the store is there
        log.error("%s (every page says so meanwhile)", error)  # noqa: TRY400 - what is wrong, not where
        app.before_request(_check_later(settings))
    except Exception:
        center.close()
        raise
    if not session_key:
        log.warning("server.session_key is not set: logins end with this process, and hold in one process only")
        session_key = Secret(secrets.token_hex(32))
    app.extensions[EXTENSION] = center
    security.init_app(app, settings, session_key, had_password=password_hash is not None)
    guard.init_app(app)
    answers.init_app(app)
    app.register_blueprint(registration.blueprint)
    app.register_blueprint(telemetry.blueprint)
    app.register_blueprint(alerts.blueprint)
    pages.init_app(app)
    if settings.server.proxies:
        n = settings.server.proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=n, x_proto=n, x_host=n)  # type: ignore[method-assign] # as documented
    atexit.register(center.close)
    return app


def _check_later(settings: Settings) -> Callable[[], None]:
    """Before each request, until the store could be asked for it once: that a center whose store was away when it
    started is not served without a login where one is needed.
    """
    checked = threading.Event()

    def check_once() -> None:
        if checked.is_set() or request.blueprint == "assets":
            return
        try:
            security.check_bind(settings, current_center().registry.password_hash())
        except SettingsError as error:
            raise StoreError(str(error)) from error
        checked.set()
        log.info("the store answers: all is served")

    return check_once


def _health() -> tuple[Response, int]:
    """For balancers: whether this replica reaches its stores. Others may do what it fails at besides."""
    center = current_center()
    try:
        center.registry.password_hash()
        if isinstance(center.telemetry, VictoriaTelemetry):
            center.telemetry.reach()
    except StoreError as error:
        log_once(error)
        return jsonify(name="iot-center", status="fail", message=str(error)), 503
    return jsonify(name="iot-center", status="pass", message="; ".join(center.failing.values()) or "ready"), 200


def _read_ahead(center: Center) -> None:
    """All registrations, before the first page that lists devices is asked for."""
    with contextlib.suppress(StoreError):
        center.registry.devices()


def open_stores(settings: Settings) -> Center:
    """The stores that the settings name; the caller closes them. InfluxDB is connected to by the first call.

    Raises SettingsError, StoreError, OSError.
    """
    check(settings)
    with contextlib.ExitStack() as opened:
        registry: Registry
        measured: Telemetry
        if "embedded" in {settings.series_on, settings.registry_on}:
            schema = embedded_schema.SCHEMA + embedded_registry.SCHEMA
            database = Database(settings.data_dir / FILE, schema, client_gone)
            opened.callback(database.close)
        if "influxdb" in {settings.series_on, settings.registry_on}:
            from center.influx.client import Influx  # noqa: PLC0415 - 0.3 s that the embedded store does not need

            influx = opened.enter_context(contextlib.closing(Influx(settings.influxdb)))
        if settings.series_on == "embedded":
            store = settings.store
            measured = EmbeddedTelemetry(database, store.bucket, round(store.retention or 0))
        elif settings.series_on == "victoria":
            victoria = opened.enter_context(contextlib.closing(Victoria(settings.victoria)))
            measured = VictoriaTelemetry(victoria, settings.victoria.bucket)
        else:
            from center.influx.telemetry import InfluxTelemetry  # noqa: PLC0415 - as above

            measured = InfluxTelemetry(influx, settings.influxdb.bucket, settings.influxdb.bucket_auth)
        if settings.registry_on == "embedded":
            registry = EmbeddedRegistry(database, measured.bucket)
        else:
            from center.influx import issuing  # noqa: PLC0415 - as above
            from center.influx import registry as on_influx  # noqa: PLC0415 - as above

            kind = on_influx.InfluxRegistry if settings.series_on == "influxdb" else issuing.IssuingRegistry
            registry = kind(influx, measured.bucket, settings.influxdb.bucket_auth)
        return Center(settings, registry, measured, opened.pop_all().close)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = "; is one running already?"
        elif error.errno in {errno.EADDRNOTAVAIL, socket.EAI_NONAME}:
            hint = "; server.host is an address of this machine, 127.0.0.1 for it alone, 0.0.0.0 for the network"
        what = f"cannot listen on {host} port {port}: {str(error.strerror).partition(' (while')[0]}{hint}"
        raise OSError(error.errno, what) from error


CONNECTIONS = 6000  # devices keep theirs open between flushes
HELD_BESIDES = 16_000_000  # bytes of requests and answers that are held at most, beside one body of the largest size


def allow_files(number: int) -> None:
    """Raise this process's limit of open files to what the connections need, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Running:
    """A center being served. `close()` ends it; twice is fine; a context manager.

    `on_failure` is called with what ended its thread against its will.
    """

    def __init__(self, app: Flask, settings: Settings, on_failure: Callable[[Exception], None]) -> None:
        self.app = app
        self._on_failure = on_failure
        self.host = settings.server.host
        self._socket = _listening(self.host, settings.server.port)
        self.port = int(self._socket.getsockname()[1])
        allow_files(CONNECTIONS + 500)
        self._server = Server(
            app,
            self._socket,
            CONNECTIONS,
            round(settings.server.max_body) + HELD_BESIDES,
            OWING if settings.server.proxies else OWING_EACH,  # behind a proxy all come from one address
            threads=settings.server.threads,
            max_request_body_size=round(settings.server.max_body * 1.5),
            ident="iot-center",
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="center-http", daemon=True)
        self._thread.start()
        center = app.extensions[EXTENSION]
        self._ahead = threading.Thread(target=_read_ahead, args=(center,), name="center-ahead", daemon=True)
        self._ahead.start()
        self._alerts = LoopThread("judging alerts", Watch(center))
        center.loops.append(self._alerts)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def _loop(self) -> None:
        try:
            self._answer()
        except Exception as error:
            log.exception("nothing is answered any more: the HTTP server failed in a way that was not foreseen")
            self._on_failure(error)

    def _answer(self) -> None:
        while not self._stop.is_set():
            wasyncore.loop(timeout=0.5, use_poll=True, map=self._server.map, count=1)
        wasyncore.dispatcher.close(self._server)  # the listening socket only: what was asked is still answered
        end = time.monotonic() + GRACE_S
        channels = self._server.active_channels
        while time.monotonic() < end and any(c.requests or c.total_outbufs_len for c in channels.values()):
            wasyncore.loop(timeout=0.05, use_poll=True, map=self._server.map, count=1)

    def close(self) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        self._alerts.stop()
        self._thread.join()
        self._alerts.join(timeout=GRACE_S)
        self._ahead.join(timeout=GRACE_S)
        self._server.task_dispatcher.shutdown(timeout=10)
        wasyncore.close_all(self._server.map)
        self.app.extensions[EXTENSION].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(
    settings: Settings,
    host: str | None = None,
    port: int | None = None,
    on_failure: Callable[[Exception], None] = lambda _: None,
) -> Running:
    """Start a center in threads of this process. Port 0: any free one; see `.port`. Raises OSError, SettingsError."""
    server = settings.server
    settings = replace(
        settings,
        server=replace(server, host=server.host if host is None else host, port=server.port if port is None else port),
    )
    app = create_app(settings)
    try:
        return Running(app, settings, on_failure)
    except BaseException:
        app.extensions[EXTENSION].close()
        raise
