"""The command `iot-agent buffer`: look at what waits, move it, and give it the time it never had."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import click

from agent.buffer.batch import UndatedBoot
from agent.buffer.offline import OfflineBuffer, look
from agent.buffer.rows import MAX_LINES, Kind, pack
from agent.cli.options import Context, common_options, since_option
from agent.clock.boots import current_boot_id
from agent.clock.manual_times import leave
from agent.config.units import counted, format_time
from agent.points import line_protocol as protocol
from agent.points.export import write_csv, write_jsonl
from agent.util.errors import AgentError, printable
from agent.util.state_folder import prepare

_READ_BYTES = 2**20
_ROWS = 10
"""Rows that are imported in one transaction: a sync for 50,000 points."""
_SHOWN_BAD = 20
_FORMATS = click.Choice(["lp", "csv", "jsonl"])


@click.group()
def buffer() -> None:
    """Look at what waits to be delivered, export it, import points. Safe while the agent runs."""


@buffer.command("show", short_help="How many points wait on disk, and the counters.")
@common_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(context: Context, as_json: bool) -> None:
    """How many points wait on disk, in which state, from when to when; and the counters as last saved."""
    with OfflineBuffer(context.buffer, write=False) as beside:
        points: Counter[str] = Counter()
        first, last = 2**63, 0
        for header in beside.headers():
            points[header.kind.name.lower()] += header.count
            if header.kind != Kind.UNDATED:
                first, last = min(first, header.first_ns), max(last, header.last_ns)
        saved = beside.counters().points
    facts: dict[str, Any] = {
        "waiting": {kind.name.lower(): points[kind.name.lower()] for kind in Kind if kind != Kind.DEAD},
        "oldest": format_time(first) if last else None,
        "newest": format_time(last) if last else None,
        "measured": saved.measured,
        "delivered": saved.delivered,
        "rejected": saved.rejected,
        "dropped": dict(saved.dropped),
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    for kind, number in facts["waiting"].items():
        click.echo(f"{kind:<10}{number:>14,}")
    if last:
        click.echo(f"from      {facts['oldest']}\nto        {facts['newest']}")
    click.echo(
        f"As last saved: {saved.measured:,} measured, {saved.delivered:,} delivered, {saved.rejected:,} rejected, "
        f"{sum(saved.dropped.values()):,} dropped. Points in the running agent's memory are in `iot-agent status`."
    )


@buffer.command("export")
@common_options
@click.option("--format", "kind", type=_FORMATS, default="lp", show_default=True, help="Line protocol, table, JSON.")
@click.option("--since", callback=since_option, help="Only points from then on: 2h, or 2026-01-31T12:00:00Z.")
@click.option("--output", "-o", type=click.File("wb", lazy=False), default="-", help="Default: standard output.")
def export(context: Context, kind: str, since: int | None, output: IO[bytes]) -> None:
    """Write what waits on disk. Nothing is removed. Points without a time yet appear as comments, in lp only."""
    with OfflineBuffer(context.buffer, write=False) as beside:

        def dated() -> Iterator[bytes]:
            for header, lines in beside.waiting():
                if header.kind != Kind.UNDATED and (since is None or header.last_ns >= since):
                    yield from (text for text in lines if since is None or int(text.rsplit(b" ", 1)[1]) >= since)

        if kind == "csv":
            write_csv(dated, output)
        elif kind == "jsonl":
            write_jsonl(dated(), output)
        else:
            for text in dated():
                output.write(text + b"\n")
            for header, lines in beside.waiting():
                if header.kind == Kind.UNDATED:
                    output.writelines(b"# no time yet, boot %s: %s\n" % (header.boot.encode(), t) for t in lines)


@buffer.command("import", short_help="Take points from a file of line protocol.")
@common_options
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--precision", type=click.Choice(list(protocol.NANOSECONDS)), default="ns", show_default=True)
@click.option("--dry-run", is_flag=True, help="Only check the lines.")
def import_(context: Context, file: Path, precision: str, dry_run: bool) -> None:
    """Take points from FILE (line protocol, `-` for standard input) and have the agent deliver them.

    Each line is checked; bad ones are reported with their number and left out, and then the exit code is 1. Points
    with the series and time of one that is stored already replace it on the server.
    """
    checker = protocol.Checker(precision)
    bad = taken = 0
    began = time.monotonic()

    def good(pieces: Iterator[bytes]) -> Iterator[list[bytes]]:
        nonlocal bad
        number = 1
        for block in protocol.blocks(pieces):
            lines, wrong, number = checker.split(block, number)
            for line in wrong[: max(0, _SHOWN_BAD - bad)]:
                shown = printable(line.line[:80].decode(errors="replace"))
                click.echo(f"line {line.number}: {line.reason}: {shown}", err=True)
            bad += len(wrong)
            yield lines

    prepare(context.state_dir)
    with OfflineBuffer(context.buffer, create=True) as beside, _pieces(file) as pieces:
        lines = chain.from_iterable(good(pieces))
        while chunk := list(islice(lines, MAX_LINES * _ROWS)):
            if not dry_run:
                beside.add([pack(chunk[n : n + MAX_LINES], Kind.PENDING) for n in range(0, len(chunk), MAX_LINES)])
            taken += len(chunk)
    if bad > _SHOWN_BAD:
        click.echo(f"… and {bad - _SHOWN_BAD:,} more bad lines", err=True)
    seconds = max(time.monotonic() - began, 1e-9)
    verb = "would be imported" if dry_run else "imported"
    click.echo(
        f"{counted(taken, 'point')} {verb} in {seconds:.1f} s ({taken / seconds:,.0f}/s), bad lines left out: {bad:,}"
    )
    if bad:
        raise click.exceptions.Exit(1)


@contextlib.contextmanager
def _pieces(file: Path) -> Iterator[Iterator[bytes]]:
    """The pieces of a file, with a progress bar on a terminal."""
    with contextlib.ExitStack() as stack:
        piped = str(file) == "-"
        source: IO[bytes] = sys.stdin.buffer if piped else stack.enter_context(file.open("rb"))
        pieces = iter(lambda: source.read(_READ_BYTES), b"")
        if sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415 - only where it draws
            from rich.progress import Progress  # noqa: PLC0415

            bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
            number = None if piped else file.stat().st_size / _READ_BYTES
            yield iter(bar.track(pieces, number, description="Importing"))
        else:
            yield pieces


@buffer.command("date", short_help="Give the points of a boot that had no clock their time.")
@click.option("--boot", metavar="N", help="Which boot: its number in the list, or the first letters of its id.")
@click.option("--at", metavar="TIME", help="When that boot began: 2026-05-01T10:30, local unless it says +02:00.")
@common_options
def date(context: Context, boot: str | None, at: str | None) -> None:
    """Date the points of a boot whose time was never known; without options, list such boots.

    A running agent does so within a minute, a stopped one at its start. The points get the tag clock=estimated.
    """
    waiting = waiting_in(context.buffer)
    if boot is None and at is None:
        _list(waiting)
        return
    if boot is None or at is None:
        raise click.UsageError("--boot and --at go together: which boot, and when it began")
    chosen = choose(waiting, boot)
    began = parse_time(at)
    try:
        leave(context.state_dir, {chosen.boot_id: began})
    except OSError as error:
        raise AgentError(f"{context.state_dir} cannot be written: {error.strerror}") from error
    first, last = (_local(began + moment) for moment in (chosen.first_ns, chosen.last_ns))
    click.echo(f"{counted(chosen.count, 'point')} will be dated from {first} to {last}")


def choose(waiting: Sequence[UndatedBoot], boot: str) -> UndatedBoot:
    """The boot of this number (1 is the oldest) or beginning of an id. Raises AgentError."""
    if not waiting:
        raise AgentError("no points wait for a time")
    found = [w for number, w in enumerate(waiting, 1) if boot == str(number)]
    found = found or [w for w in waiting if boot and w.boot_id.startswith(boot)]
    if len(found) != 1:
        raise AgentError(f"--boot {boot} is not one of 1 to {len(waiting)}: see iot-agent buffer date")
    return found[0]


def parse_time(text: str) -> int:
    """Unix ns of an ISO 8601 time, local unless it names its zone. Raises AgentError for the future and before 2020."""
    try:
        moment = dt.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise AgentError(f"--at {text!r} is not a time like 2026-05-01T10:30 or 2026-05-01T10:30:00+02:00") from error
    if not dt.datetime(2020, 1, 1, tzinfo=dt.UTC) <= moment <= dt.datetime.now(dt.UTC):
        raise AgentError(f"--at {text} is {'in the future' if moment.year >= 2020 else 'before 2020'}")
    return round(moment.timestamp() * 1000) * 1_000_000


def waiting_in(folder: Path) -> list[UndatedBoot]:
    """The earlier boots with points that have no time, oldest first, as they are on disk. Raises AgentError."""
    found = look(folder)
    if found is not None and found.problem:
        raise AgentError(f"the buffer in {folder} cannot be read ({found.problem}): starting the agent repairs it")
    return [boot for boot in found.boots if boot.boot_id != current_boot_id()] if found else []


def _list(waiting: Sequence[UndatedBoot]) -> None:
    if not waiting:
        click.echo("no points of earlier boots wait for a time")
    for number, boot in enumerate(waiting, 1):
        first, last = (_span(moment) for moment in (boot.first_ns, boot.last_ns))
        taken = f"{counted(boot.count, 'point')}, taken {first} to {last} after that boot began"
        click.echo(f"{number}  {boot.boot_id[:8]}  {taken}")


def _span(boot_ns: int) -> str:
    return str(dt.timedelta(seconds=boot_ns // 1_000_000_000))


def _local(unix_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(unix_ns // 1_000_000_000).astimezone():%Y-%m-%d %H:%M:%S%z}"
