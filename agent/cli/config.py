"""`iot-agent config`: the documented configuration to start from."""

from __future__ import annotations

from importlib.resources import files

import click


@click.command()
def config() -> None:
    """Print a configuration with every key, its default and what it is for: iot-agent config > agent.toml."""
    click.echo(files("agent").joinpath("agent.toml.example").read_text(encoding="utf-8"), nl=False)
