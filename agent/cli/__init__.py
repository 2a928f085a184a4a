"""The command `iot-agent`. Each command stands in a module of its own and is imported only when it is called."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper

import click

from agent import __version__

COMMANDS = {
    "init": ("agent.cli.init", "Ask a few questions and write agent.toml."),
    "config": ("agent.cli.config", "Print the documented configuration."),
    "run": ("agent.cli.run", "Measure, buffer and deliver until stopped."),
    "check": ("agent.cli.run", "Check the configuration without hardware or network."),
    "status": ("agent.cli.status", "What the running agent does, or what is on disk when none runs."),
    "reload": ("agent.cli.run", "Make the running agent read its configuration again."),
    "read": ("agent.cli.sensor", "Read a sensor now."),
    "scan": ("agent.cli.scan", "Which sensors answer, and what to write into agent.toml for them."),
    "register": ("agent.cli.register", "Register with the center now."),
    "unregister": ("agent.cli.register", "Remove this device's registration."),
    "buffer": ("agent.cli.buffer", "Look at what waits, export it, import points."),
    "rejected": ("agent.cli.rejected", "Points that the server refused: look, export, replay, purge."),
    "backfill": ("agent.cli.backfill", "Write the virtual sensor's past."),
    "doctor": ("agent.cli.doctor", "Check the whole chain, each failure with its remedy."),
    "install-service": ("agent.cli.install_service", "Have systemd start the agent at boot."),
    "demo": ("agent.cli.demo", "Start a center and a virtual device, and show both at work."),
    "simulate": ("agent.cli.simulate", "Put many virtual devices on one server."),
}


class LazyGroup(click.Group):
    """Lists its commands without importing them: `iot-agent check` and `status` start in a blink on a Pi Zero."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[name][0]), name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = get_close_matches(args[0], COMMANDS, 1) if args[0] not in COMMANDS else []
        if near:
            ctx.fail(f"no command {args[0]!r}: did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup)
@click.version_option(__version__, prog_name="iot-agent")
def main() -> None:
    """The edge agent: measures, buffers, delivers, and accounts for every point."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without the sign for degrees is no reason to end
