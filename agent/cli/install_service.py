"""`iot-agent install-service`: for a wheel or pipx, what the Debian package does by itself."""

from __future__ import annotations

from importlib.resources import files

import click

from agent.cli.options import Context, common_options
from agent.util import service


@click.command("install-service")
@click.option("--print", "show", is_flag=True, help="Print the unit, change nothing.")
@common_options
def install_service(_: Context, *, show: bool) -> None:
    """Have systemd start the agent at boot: its unit, and the user iot-agent in the group i2c. Needs root.

    Its configuration is /etc/iot-agent/agent.toml (iot-agent init), its state /var/lib/iot-agent.
    """
    unit = files("agent").joinpath("iot-agent.service").read_text(encoding="utf-8")
    if show:
        click.echo(service.fit(unit, "iot-agent"), nl=False)
        return
    click.echo(service.install(unit, "iot-agent", ("i2c",)))
