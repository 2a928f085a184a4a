"""The command `iot-agent rejected`: points that the server refused."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import IO, Any

import click

from agent.buffer.offline import Letter, OfflineBuffer
from agent.buffer.rows import Kind
from agent.cli.options import Context, common_options, since_option
from agent.config.units import counted, format_time
from agent.util.errors import printable

Chosen = Callable[[Letter], bool]


@click.group()
def rejected() -> None:
    """Points that the server refused: look at them, export, deliver again once the cause is mended, remove."""


def _choice(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose letters: the command gets `chosen`, which says of a letter whether it is."""

    @click.option("--reason", help="Only points with this reason, as `list` shows it.")
    @click.option("--since", callback=since_option, help="Only points refused from then on: 2h, or a date.")
    @click.argument("numbers", nargs=-1)
    @functools.wraps(command)
    def wrapped(
        *arguments: Any, reason: str | None, since: int | None, numbers: tuple[str, ...], **options: Any
    ) -> None:
        def chosen(item: Letter) -> bool:
            return (
                (reason is None or item.letter.reason == reason)
                and (since is None or item.letter.time_ns >= since)
                and (not numbers or item.number in numbers or item.number.split(".")[0] in numbers)
            )

        command(*arguments, chosen=chosen, **options)

    return wrapped


@rejected.command("list")
@common_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(context: Context, as_json: bool) -> None:
    """Reasons and messages, how often, and when last."""
    groups: dict[tuple[str, str], list[Any]] = {}
    with OfflineBuffer(context.buffer, write=False) as beside:
        for item in beside.letters():
            letter = item.letter
            group = groups.setdefault((letter.reason, _shape(letter.message)), [0, 0, item.number])
            group[0] += 1
            group[1] = max(group[1], letter.time_ns)
        held = _held_back(beside)
    if as_json:
        rows = [
            {"reason": reason, "message": message, "points": n, "last": format_time(when), "example": number}
            for (reason, message), (n, when, number) in groups.items()
        ]
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    if not groups:
        click.echo("No point was refused.")
    for (reason, message), (n, when, number) in sorted(groups.items(), key=lambda g: -g[1][0]):
        click.echo(f"{n:>9,}  {reason:<14} last {format_time(when)}  e.g. {number}\n{'':>11}{message}")
    if held:
        click.echo(held)


def _held_back(beside: OfflineBuffer) -> str | None:
    """What to say of points that the server refuses and that are no dead letters, since somebody can mend that."""
    points = sum(header.count for header in beside.headers() if header.kind is Kind.PARKED)
    words = "held back and tried again by themselves, at once by `iot-agent reload`; why: `iot-agent status`"
    return f"{counted(points, 'point')} {words}" if points else None


def _shape(message: str) -> str:
    """A message without the line it quotes, so that those of one cause are one group."""
    before, quote, rest = message.partition("unable to parse '")
    return f"{before}{quote}…{rest[rest.rfind(chr(39)) :]}" if quote else message


@rejected.command("show")
@common_options
@_choice
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
def show_letters(context: Context, chosen: Chosen, limit: int) -> None:
    """Refused points, with number, time, reason and the server's words. NUMBERS: 3 (a batch) or 3.17 (a point)."""
    shown = 0
    with OfflineBuffer(context.buffer, write=False) as beside:
        for item in beside.letters():
            if not chosen(item):
                continue
            if shown == limit:
                click.echo("… there are more: see --limit")
                return
            shown += 1
            letter = item.letter
            click.echo(f"{item.number}  {format_time(letter.time_ns)}  {letter.reason}: {letter.message}")
            click.echo(f"    {printable(letter.line.decode(errors='replace'))}")
    if not shown:
        click.echo("No refused point matches.")


@rejected.command("export", short_help="Write refused points as line protocol or JSON.")
@common_options
@_choice
@click.option("--format", "kind", type=click.Choice(["lp", "jsonl"]), default="lp", show_default=True)
@click.option("--output", "-o", type=click.File("wb", lazy=False), default="-")
def export_letters(context: Context, chosen: Chosen, kind: str, output: IO[bytes]) -> None:
    """Write refused points as line protocol, or with reason and message as JSON. Nothing is removed."""
    with OfflineBuffer(context.buffer, write=False) as beside:
        for item in filter(chosen, beside.letters()):
            letter = item.letter
            if kind == "lp":
                output.write(letter.line + b"\n")
            else:
                text = letter.line.decode("utf-8", "replace")
                row = {"number": item.number, "time": format_time(letter.time_ns), "reason": letter.reason}
                output.write(json.dumps(row | {"message": letter.message, "line": text}).encode() + b"\n")


@rejected.command("replay", short_help="Let the agent deliver refused points again.")
@common_options
@_choice
def replay(context: Context, chosen: Chosen) -> None:
    """Let the agent deliver refused points again; all, unless chosen otherwise. What is refused again comes back."""
    with OfflineBuffer(context.buffer) as beside:
        done = beside.remove(chosen, replay=True)
        held = _held_back(beside)
    click.echo(f"{counted(done, 'point')} to be delivered again")
    if held:
        click.echo(held)


@rejected.command("purge", short_help="Remove refused points for good.")
@common_options
@_choice
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(context: Context, chosen: Chosen, yes: bool) -> None:
    """Remove refused points for good; all, unless chosen otherwise. They stay counted as rejected."""
    with OfflineBuffer(context.buffer) as beside:
        number = sum(map(chosen, beside.letters()))
        if number and not yes:
            click.confirm(f"Remove {number:,} refused points for good?", abort=True)
        done = beside.remove(chosen, replay=False)
    click.echo(f"{counted(done, 'point')} removed")
