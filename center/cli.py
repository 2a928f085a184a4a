"""iot-center: serve, set up, check, set the password, make enrollment keys."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, cast

import click

from agent.util.logs import log_handler
from agent.util.secret import Secret
from center.enroll import enroll
from center.errors import SettingsError, StoreError
from center.init import config_command, init_command, install_service_command
from center.options import Group, duration, opened, with_settings
from center.settings import Settings, check

if TYPE_CHECKING:  # Flask and influxdb-client may not be installed, and take their time
    from center.embedded.registry import EmbeddedRegistry
    from center.findings import Finding
    from center.influx.registry import InfluxRegistry
    from center.victoria.telemetry import VictoriaTelemetry


@click.group(cls=Group)
@click.version_option(package_name="iot-edge-agent", prog_name="iot-center")
def main() -> None:
    """The IoT Center: registers devices and shows what they measure."""


for command in (enroll, init_command, config_command, install_service_command):
    main.add_command(command)


@main.command()
@with_settings
@click.option("--host", help="Address to listen on; other than loopback needs a password.")
@click.option("--port", type=int, help="Default: 5000.")
@click.option("--until-input-ends", is_flag=True, help="Stop once standard input ends: with who started it.")
def serve(settings: Settings, *, host: str | None, port: int | None, until_input_ends: bool) -> None:
    """Serve the API and the pages until SIGTERM or Ctrl-C."""
    from center.app import serve as start  # noqa: PLC0415 - as above

    level = logging.DEBUG if click.get_current_context().params["debug"] else logging.INFO
    logging.basicConfig(level=level, handlers=[log_handler(sys.stderr)])
    for name in ("waitress", "flask_wtf"):  # a line for whatever strangers send
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # waiting for the disk together is how it works
    ended: SimpleQueue[int | Exception] = SimpleQueue()  # what a handler may use, also while the first one runs
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: ended.put(number))
    if until_input_ends:
        threading.Thread(target=_wait_for_end_of_input, args=(ended,), name="center-input", daemon=True).start()
    with start(settings, host, port, ended.put) as running:
        click.echo(f"IoT Center on {running.url} (store: {_store_of(settings)})")
        if isinstance(end := ended.get(), Exception):
            raise StoreError(f"nothing was answered any more: {end}") from end


def _wait_for_end_of_input(ended: SimpleQueue[int | Exception]) -> None:
    while os.read(0, 4096):  # the descriptor: a thread in sys.stdin would hold up the end of the interpreter
        pass
    ended.put(signal.SIGTERM)


def _store_of(settings: Settings) -> str:
    """Where series and registrations are, in a few words."""
    places = {
        "embedded": f"embedded, {settings.data_dir}",
        "influxdb": settings.influxdb.url,
        "victoria": f"VictoriaMetrics, {settings.victoria.url}",
    }
    series, registry = settings.series_on, settings.registry_on
    return places[series] + (f"; registrations: {places[registry]}" if series == "victoria" else "")


@main.command(short_help="Make what InfluxDB lacks: buckets, first user and token.")
@with_settings
@click.option("--retention", default="never", show_default=True, help='How long measurements are kept, like "365d".')
@click.option("--username", default="admin", show_default=True, help="InfluxDB's first user, if it is fresh.")
def setup(settings: Settings, *, retention: str, username: str) -> None:
    """Make what InfluxDB lacks: the two buckets and, if it is fresh, its first user, organisation and token. For series
    on VictoriaMetrics say what that has to be started with, and whether it is.
    """
    if settings.embedded:
        raise SettingsError("the embedded store needs no setup")
    if settings.series_on == "victoria":
        from center.victoria import setup as on_victoria  # noqa: PLC0415 - as above

        click.echo(on_victoria.NEEDED)
        if settings.registry_on == "embedded":
            with opened(settings) as center:
                _report(on_victoria.check(cast("VictoriaTelemetry", center.telemetry)))
            return
    from center.influx import setup  # noqa: PLC0415 - as above

    kept = round(duration("--retention", retention) or 0)
    fresh = bool(settings.influxdb.url) and setup.is_fresh(settings)
    if not (fresh and not settings.influxdb.token):
        check(settings)
    if fresh:
        token = setup.onboard(settings, username, Secret(_ask("Password for InfluxDB's first user")), kept)
        if token is not None and not settings.influxdb.token:
            click.echo("InfluxDB made this token for the center; keep it in center.toml, it is not shown again:")
            click.echo(token.reveal())
            settings = replace(settings, influxdb=replace(settings.influxdb, token=token))
        click.echo(f"InfluxDB is set up: user {username}, organisation {settings.influxdb.org}")
    with opened(settings) as center:
        registry = cast("InfluxRegistry", center.registry)
        for line in setup.make_buckets(registry, kept):
            click.echo(line)
        _report(setup.check(registry))


@main.command("check")
@with_settings
@click.option("--sweep", is_flag=True, help="Delete authorizations that no registration refers to.")
def check_command(settings: Settings, *, sweep: bool) -> None:
    """Say what is missing, and which authorizations no device holds."""
    with opened(settings) as center:
        if settings.series_on == "victoria":
            from center.victoria import setup as on_victoria  # noqa: PLC0415 - as above

            _report(on_victoria.check(cast("VictoriaTelemetry", center.telemetry)))
        if settings.registry_on == "embedded":
            click.echo(f"✓ the embedded store in {settings.data_dir} opens; {center.registry.devices().total} devices")
            failing = cast("EmbeddedRegistry", center.registry).database.rehearse()
            for name, why in failing.items():
                click.echo(f"✗ {name} fails: {why}\n  → see the log of iot-center")
            if failing:
                sys.exit(1)
        else:
            from center.influx import setup  # noqa: PLC0415 - as above

            registry = cast("InfluxRegistry", center.registry)
            _report(setup.check(registry))
            if sweep:
                swept = registry.sweep(older_than_s=600)
                click.echo(f"✓ {len(swept)} authorizations without a registration are deleted")
            _report(setup.devices(registry))
        if not settings.loopback and not center.registry.password_hash():
            click.echo(f"✗ no password is set, so it will not serve on {settings.server.host}: iot-center password")
            sys.exit(1)


def _report(findings: Iterable[Finding]) -> None:
    """Prints the findings; ends with 1 if one of them needs mending."""
    well = True
    for finding in findings:
        click.echo(f"✗ {finding.text}\n  → {finding.remedy}" if finding.remedy else f"✓ {finding.text}")
        well = well and not finding.remedy
    if not well:
        sys.exit(1)


def _ask(prompt: str) -> str:
    """A password from the terminal, or a line of standard input. Raises SettingsError where there is none."""
    if sys.stdin.isatty():
        return str(click.prompt(prompt, hide_input=True, confirmation_prompt=True))
    if given := sys.stdin.readline().rstrip("\r\n"):
        return given
    raise SettingsError(f"{prompt}: there is no terminal to ask on and standard input is empty: pipe it in as one line")


@main.command(short_help="Set the administrator's password.")
@with_settings
@click.option("--clear", is_flag=True, help="No password any more: loopback only.")
def password(settings: Settings, *, clear: bool) -> None:
    """Set the administrator's password, asked for or read from standard input."""
    with opened(settings) as center:
        center.registry.set_password_hash(None if clear else _hashed())
    cleared = "the password is cleared; a running center lets nobody in until it is started again"
    click.echo(cleared if clear else "the password is set; earlier logins have ended")


def _hashed() -> str:
    """Of a password that is long enough: at a terminal it is asked for again."""
    from center.security import MIN_PASSWORD, hash_password  # noqa: PLC0415 - as above

    while True:
        try:
            return hash_password(Secret(_ask(f"New password, of at least {MIN_PASSWORD} characters")))
        except ValueError as error:
            if not sys.stdin.isatty():
                raise SettingsError(str(error)) from error
            click.echo(f"Error: {error}", err=True)
