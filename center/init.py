"""`iot-center config`, `init` and `install-service`: from nothing to a center that serves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from agent.config.limits import check_url
from agent.util import service
from agent.util.errors import AgentError
from agent.util.questions import Checked, ask, place
from agent.util.text import read_text
from center.errors import SettingsError
from center.settings import LOOPBACK, check
from center.settings_files import load

NAME = "iot-center"
SYSTEM_CONFIG = Path("/etc/iot-center/center.toml")
SYSTEM_DATA = "/var/lib/iot-center"
HEAD = "# Made by iot-center init. Every key, its default and what it is for: iot-center config\n"


def _address(host: str) -> str:
    """What can be listened on, as serve will. ValueError for what is none, or another machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, 0), family=family).close()
    except (OSError, UnicodeError):
        meant = "127.0.0.1 for it alone, 0.0.0.0 for the network"
        raise ValueError(f"{host!r} is no address of this machine: {meant}") from None
    return host


HOST = Checked(_address)


@click.command("config")
def config_command() -> None:
    """Print a configuration with every key, its default and what it is for: iot-center config > center.toml."""
    click.echo(files("center").joinpath("center.toml.example").read_text(encoding="utf-8"), nl=False)


@click.command("init", short_help="Ask a few questions and write center.toml.")
@click.option("--config", type=click.Path(path_type=Path), help="Default: ./center.toml, for root /etc/iot-center.")
@click.option("--embedded", is_flag=True, help="Store in a SQLite file: for laptops, demos and tests.")
@click.option("--influxdb", metavar="URL", help="Store in this InfluxDB 2.")
@click.option("--org", help="Organization in InfluxDB.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Holds InfluxDB's token for the center.")
@click.option(
    "--host", type=HOST, help="Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for the network."
)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
@click.option("--no-start", is_flag=True, help="Leave the service as it is.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def init_command(
    *,
    config: Path | None,
    embedded: bool,
    influxdb: str | None,
    org: str | None,
    token_file: Path | None,
    host: str | None,
    port: int,
    force: bool,
    no_start: bool,
    debug: bool,
) -> None:
    """Ask where to store and who may reach it, write center.toml, make what is missing and set the password.

    Asked is only what no option says; without a terminal nothing is. The password then is a line of standard input.
    """
    del debug  # for the group
    config = config or place(SYSTEM_CONFIG)
    if config.exists() and not force:
        raise SettingsError(f"{config} is there already: change it with an editor, or replace it by --force")
    if embedded and influxdb:
        raise click.UsageError("--embedded or --influxdb, not both")
    if not embedded and influxdb is None:
        kind = ask("--embedded or --influxdb", "Store in", "embedded", click.Choice(["embedded", "influxdb"]))
        embedded = kind == "embedded"
    token, tables = "", ["[embedded]", "enabled = true"]
    if not embedded:
        influxdb = influxdb or ask("--influxdb", "Its address", "http://localhost:8086", Checked(check_url))
        org = org or ask("--org", "Organization")
        token = _read(token_file) if token_file else ask("--token-file", "Token for the center", hidden=True).strip()
        tables = ["[influxdb]", *_keys(url=influxdb, org=org)]
    host = host or ask("--host", "Listen on (0.0.0.0 for the whole network)", "127.0.0.1", HOST)
    server = ["", "[server]", *_keys(host=host), f"port = {port}", ""]
    with TemporaryDirectory() as folder:  # nothing is kept that no center could run with
        check(load(_write(Path(folder, config.name), tables, server, token)))
    _write(config, tables, server, token)
    text = config.read_text(encoding="utf-8")
    click.echo(f"{config} is written:\n\n{text}")
    _run(config, "check" if embedded and host in LOOPBACK else "password" if embedded else "setup")
    if not embedded and host not in LOOPBACK:
        _run(config, "password")
    _say_what_is_next(config, host, port, start=not no_start)


@click.command("install-service", short_help="Have systemd start the center at boot.")
@click.option("--print", "show", is_flag=True, help="Print the unit, change nothing.")
def install_service_command(*, show: bool) -> None:
    """Have systemd start the center at boot: its unit, and the user iot-center. Needs root.

    Its configuration is /etc/iot-center/center.toml (iot-center init), an embedded store lies in /var/lib/iot-center.
    """
    unit = files("center").joinpath("iot-center.service").read_text(encoding="utf-8")
    if show:
        click.echo(service.fit(unit, NAME), nl=False)
        return
    click.echo(service.install(unit, NAME))


def _read(file: Path) -> str:
    try:
        token = read_text(file).strip()
    except ValueError as error:
        raise SettingsError(f"--token-file {file} cannot be read: {error}") from error
    if not token:
        raise SettingsError(f"--token-file {file} holds no token")
    return token


def _write(config: Path, tables: list[str], server: list[str], token: str) -> Path:
    """The configuration, and beside it the token where there is one."""
    if token:
        kept = config.absolute().with_name("influxdb.token")
        tables = [*tables, *_keys(token_file=str(kept))]
        service.write_private(kept, f"{token}\n", NAME)
    service.write_private(config, "\n".join([HEAD, *tables, *server]), NAME)
    return config


def _keys(**texts: str) -> list[str]:
    """TOML of texts. JSON's are such."""
    return [f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in texts.items()]


def _run(config: Path, command: str) -> None:
    """Another command of ours, by root as the service's user: files of root in its folder would lock it out."""
    user = service.user_of(NAME) if config.absolute() == SYSTEM_CONFIG and os.geteuid() == 0 else None
    environment = dict(os.environ)
    if user:
        environment["STATE_DIRECTORY"] = SYSTEM_DATA
    sys.stdout.flush()
    try:
        code = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "center", command, "--config", str(config)],
            env=environment,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
            check=False,
        ).returncode
    except KeyboardInterrupt:  # instead of a password, say: what is written needs it all the same
        code = 1
    if code:
        call = f"iot-center {command}{_option(config)}"
        raise SettingsError(f"{config} is written, but {call} failed: mend it, and call that again")


def _option(config: Path) -> str:
    """What names the configuration to a command that would not find it."""
    return "" if config.absolute() in {SYSTEM_CONFIG, Path("center.toml").absolute()} else f" --config {config}"


def _say_what_is_next(config: Path, host: str, port: int, *, start: bool) -> None:
    url = f"http://{'127.0.0.1' if host in LOOPBACK else 'NAME-OF-THIS-MACHINE'}:{port}"
    if config.absolute() == SYSTEM_CONFIG and start and service.is_installed(NAME) and service.runs():
        try:
            service.restart(NAME)
        except AgentError as error:
            raise SettingsError(f"{config} is written, but {error}: journalctl -u iot-center says why") from error
        click.echo(f"\nThe service iot-center runs, on {url}")
    else:
        click.echo(f"\nNext: iot-center serve{_option(config)}    # then it is on {url}")
    if host in LOOPBACK:
        click.echo(f"A device on this machine: iot-agent init --center {url}")
    else:
        click.echo("A device needs an enrollment key, once: iot-center enroll")
        click.echo(f"Then, on the device: iot-agent init --center {url} --key-file FILE")
