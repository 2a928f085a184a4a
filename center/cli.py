"""iot-center: serve, set up, check, set the password, make enrollment keys."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, cast

import click

from agent.config.units import parse_duration
from agent.util.errors import AgentError, printable
from agent.util.secret import Secret
from agent.util.service import acting_as
from center.errors import SettingsError, StoreError
from center.init import config_command, init_command, install_service_command
from center.settings import Settings, check, load
from center.stores.registry import EnrollmentKey
from center.times import iso, now_ns

if TYPE_CHECKING:  # Flask and influxdb-client may not be installed, and take their time
    from center.context import Center
    from center.embedded.registry import EmbeddedRegistry
    from center.findings import Finding
    from center.influx.registry import InfluxRegistry
    from center.victoria.telemetry import VictoriaTelemetry

EX_CONFIG = 78
EX_UNAVAILABLE = 69


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """A command of the settings that its common options, center.toml and the environment give."""

    @functools.wraps(command)
    def configured(*, config: Path | None, embedded: bool, data: Path | None, debug: bool, **own: Any) -> None:
        del debug  # for serve and the group
        settings = load(config)
        if embedded:
            settings = replace(settings, embedded=True)
        if data:
            settings = replace(settings, store=replace(settings.store, data=str(data)))
        command(settings, **own)

    for option in (
        click.option("--debug", is_flag=True, help="Show tracebacks."),
        click.option("--data", type=click.Path(path_type=Path), help="Folder of the embedded store."),
        click.option("--embedded", is_flag=True, help="Store in a SQLite file: for laptops, demos and tests."),
        click.option("--config", type=click.Path(path_type=Path), help="Default: ./center.toml."),
    ):
        configured = option(configured)
    return configured


def _stores(settings: Settings) -> closing[Center]:
    from center.app import open_stores  # noqa: PLC0415 - Flask, after the options are known to be right

    return closing(open_stores(settings))


class _Group(click.Group):
    """One line on stderr and an exit code for what an operator can mend; a traceback only with --debug."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SettingsError, StoreError, AgentError, OSError, ModuleNotFoundError) as error:
            if "--debug" in sys.argv or getattr(error, "name", None) in {"agent", "drivers", "center"}:
                raise
            text = str(error)
            if isinstance(error, ModuleNotFoundError):  # the agent is installed without what only the center needs
                text = f"{error.name} is not installed: pip install 'iot-edge-agent[center]'"
            elif isinstance(error, OSError) and error.filename is None:
                text = error.strerror or text
            click.echo(f"iot-center: {text}", err=True)
            sys.exit(EX_CONFIG if isinstance(error, SettingsError | AgentError) else EX_UNAVAILABLE)


@click.group(cls=_Group)
@click.version_option(package_name="iot-edge-agent", prog_name="iot-center")
def main() -> None:
    """The IoT Center: registers devices and shows what they measure."""


for command in (init_command, config_command, install_service_command):
    main.add_command(command)


class LogLine(logging.Formatter):
    """One line, whatever line breaks and control characters a path or a name has in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


@main.command()
@_with_settings
@click.option("--host", help="Address to listen on; other than loopback needs a password.")
@click.option("--port", type=int, help="Default: 5000.")
@click.option("--until-input-ends", is_flag=True, help="Stop once standard input ends: with who started it.")
def serve(settings: Settings, *, host: str | None, port: int | None, until_input_ends: bool) -> None:
    """Serve the API and the pages until SIGTERM or Ctrl-C."""
    from center.app import serve as start  # noqa: PLC0415 - as above

    level = logging.DEBUG if click.get_current_context().params["debug"] else logging.INFO
    handler = logging.StreamHandler()
    handler.setFormatter(LogLine("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
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
@_with_settings
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
            with _stores(settings) as center:
                _report(on_victoria.check(cast("VictoriaTelemetry", center.telemetry)))
            return
    from center.influx import setup  # noqa: PLC0415 - as above

    kept = round(_duration("--retention", retention) or 0)
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
    with _stores(settings) as center:
        registry = cast("InfluxRegistry", center.registry)
        for line in setup.make_buckets(registry, kept):
            click.echo(line)
        _report(setup.check(registry))


@main.command("check")
@_with_settings
@click.option("--sweep", is_flag=True, help="Delete authorizations that no registration refers to.")
def check_command(settings: Settings, *, sweep: bool) -> None:
    """Say what is missing, and which authorizations no device holds."""
    with _stores(settings) as center:
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


def _duration(option: str, text: str) -> float | None:
    """Seconds of an option's text; None for `never`."""
    try:
        return None if text == "never" else parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"{option} {text!r}: should be {error}, or never") from error


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
@_with_settings
@click.option("--clear", is_flag=True, help="No password any more: loopback only.")
def password(settings: Settings, *, clear: bool) -> None:
    """Set the administrator's password, asked for or read from standard input."""
    from center.security import hash_password  # noqa: PLC0415 - as above

    with _stores(settings) as center:
        try:
            hashed = None if clear else hash_password(Secret(_ask("New password")))
        except ValueError as error:
            raise SettingsError(str(error)) from error
        center.registry.set_password_hash(hashed)
    cleared = "the password is cleared; a running center lets nobody in until it is started again"
    click.echo(cleared if clear else "the password is set; earlier logins have ended")


@main.command(short_help="Make, list or revoke enrollment keys of devices.")
@_with_settings
@click.option("--uses", type=click.IntRange(1), default=1, show_default=True, help="Devices it lets register.")
@click.option("--unlimited", is_flag=True, help="Any number of devices.")
@click.option("--expires", default="7d", show_default=True, help='Like "12h"; "never" for no end.')
@click.option("--note", default="", help="What it is for.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the key to this new file, for its owner only.")
@click.option("--list", "show", is_flag=True, help="List the keys that were made.")
@click.option("--revoke", metavar="ID", help="Make a key worthless.")
def enroll(
    settings: Settings,
    *,
    uses: int,
    unlimited: bool,
    expires: str,
    note: str,
    output: Path | None,
    show: bool,
    revoke: str | None,
) -> None:
    """Make an enrollment key: devices need one to register with a center that is not on their own machine."""
    lasts = _duration("--expires", expires)
    with contextlib.ExitStack() as stack:
        file = None
        if output and not (show or revoke):
            file = stack.enter_context(_new_file(output))  # before there is a key to be lost
        stack.enter_context(acting_as("iot-center"))
        registry = stack.enter_context(_stores(settings)).registry
        if show:
            _list(registry.enrollment_keys())
        elif revoke:
            if not registry.revoke_enrollment_key(revoke):
                raise SettingsError(f"there is no enrollment key {revoke!r}: see iot-center enroll --list")
            click.echo(f"{revoke} is revoked")
        else:
            _, secret = registry.make_enrollment_key(
                note=note,
                uses=None if unlimited else uses,
                expires_ns=None if lasts is None else now_ns() + round(lasts * 1e9),
            )
            click.echo(secret.reveal(), file)
            if output:
                click.echo(f"the key is in {output}, which only its owner can read", err=True)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[str]]:
    """For its owner alone, who with sudo is whoever called that; gone again after an error. Raises SettingsError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingsError(f"--output {path}: {error.strerror}: name a file that is not there yet") from error
    caller = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and all(number.isdecimal() for number in caller):
        os.fchown(descriptor, *map(int, caller))
    try:
        with os.fdopen(descriptor, "w") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _list(keys: Sequence[EnrollmentKey]) -> None:
    now = now_ns()
    for key in keys:
        uses = "any number of times" if key.uses is None else f"{key.uses} times"
        ends = "never ends" if key.expires_ns is None else f"ends {iso(key.expires_ns // 10**9 * 10**9)}"
        state = "valid" if key.valid(now) else "revoked" if key.revoked else "over"
        click.echo(f"{key.id}  {state:7}  used {key.used} of {uses}, {ends}  {key.note}")
