"""The commands `iot-agent buffer` and `iot-agent rejected`: look at what waits and what was refused, and move it."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from agent.buffer.offline import OfflineBuffer
from agent.buffer.rows import MAX_LINES, Kind, pack
from agent.cli.buffer_date import date
from agent.cli.options import Context, common_options
from agent.config.units import parse_duration
from agent.points import line_protocol as protocol
from agent.util.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.buffer.offline import Waiting

_READ_BYTES = 2**20
_ROWS = 10
"""Rows that are imported in one transaction: a sync for 50,000 points."""
_SHOWN_BAD = 20
_FORMATS = click.Choice(["lp", "csv", "jsonl"])


def folder_of(context: Context) -> Path:
    return context.state_dir / "buffer"


def iso(time_ns: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    when = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{time_ns // 1_000_000 % 1000:03}Z"


def since_option(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Unix ns of `2h`, or of a date and time (UTC where it does not say)."""
    if text is None:
        return None
    try:
        return int((time.time() - parse_duration(text)) * 1e9)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: a duration like 2h, or a time like 2026-01-31T12:00:00Z") from error
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e9)


@click.group()
def buffer() -> None:
    """Look at what waits to be delivered, export it, import points. Safe while the agent runs."""


buffer.add_command(date)


@buffer.command("show", short_help="How many points wait on disk, and the counters.")
@common_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(context: Context, as_json: bool) -> None:
    """How many points wait on disk, in which state, from when to when; and the counters as last saved."""
    with OfflineBuffer(folder_of(context), write=False) as beside:
        points: Counter[str] = Counter()
        first, last = 2**63, 0
        for header in beside.headers():
            points[header.kind.name.lower()] += header.count
            if header.kind != Kind.UNDATED:
                first, last = min(first, header.first_ns), max(last, header.last_ns)
        saved = beside.counters()
    facts: dict[str, Any] = {
        "waiting": {kind.name.lower(): points[kind.name.lower()] for kind in Kind if kind != Kind.DEAD},
        "oldest": iso(first) if last else None,
        "newest": iso(last) if last else None,
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
    with OfflineBuffer(folder_of(context), write=False) as beside:

        def rows() -> Iterator[Waiting]:
            return (r for r in beside.waiting() if since is None or r.header.last_ns >= since)

        def dated() -> Iterator[bytes]:
            for row in rows():
                if row.header.kind != Kind.UNDATED:
                    yield from (text for text in row.lines if since is None or int(text.rsplit(b" ", 1)[1]) >= since)

        if kind == "lp":
            for text in dated():
                output.write(text + b"\n")
            for row in beside.waiting():
                if row.header.kind == Kind.UNDATED:
                    output.writelines(
                        b"# no time yet, boot %s: %s\n" % (row.header.boot.encode(), t) for t in row.lines
                    )
        else:
            _write_points(dated, kind, output)


def _write_points(dated: Any, kind: str, output: IO[bytes]) -> None:
    """The points as a table whose columns are the tags and fields that occur, or as one JSON object a line."""
    if kind == "jsonl":
        for text in dated():
            if (point := protocol.parse(text)) is not None:
                fields = {key: protocol.value_of(value) for key, value in point.fields.items()}
                row = {
                    "time": iso(point.stamp),
                    "measurement": point.measurement,
                    "tags": point.tags,
                    "fields": fields,
                }
                output.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return
    tags: dict[str, None] = {}
    names: dict[str, None] = {}
    for text in dated():
        if (point := protocol.parse(text)) is not None:
            tags |= dict.fromkeys(point.tags)
            names |= dict.fromkeys(point.fields)

    class Encoded:
        @staticmethod
        def write(text: str) -> int:
            return output.write(text.encode())

    table = csv.writer(Encoded())
    table.writerow(["time", "measurement", *tags, *names])
    for text in dated():
        if (point := protocol.parse(text)) is not None:
            values = (str(protocol.value_of(point.fields[n])) if n in point.fields else "" for n in names)
            table.writerow([iso(point.stamp), point.measurement, *(point.tags.get(t, "") for t in tags), *values])


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
    number = 1
    waiting: list[bytes] = []
    began = time.monotonic()
    with OfflineBuffer(folder_of(context), create=True) as beside, _source(file) as (pieces, progress):

        def store(least: int) -> None:
            nonlocal taken
            while len(waiting) > least:
                chunk = waiting[: MAX_LINES * _ROWS]
                rows = [pack(chunk[n : n + MAX_LINES], Kind.PENDING) for n in range(0, len(chunk), MAX_LINES)]
                if not dry_run:
                    beside.add(rows)
                taken += len(chunk)
                del waiting[: len(chunk)]

        for block in protocol.blocks(pieces):
            good, wrong, number = checker.split(block, number)
            for line in wrong[: max(0, _SHOWN_BAD - bad)]:
                shown = printable(line.line[:80].decode(errors="replace"))
                click.echo(f"line {line.number}: {line.reason}: {shown}", err=True)
            bad += len(wrong)
            waiting += good
            store(MAX_LINES * _ROWS - 1)
            progress()
        store(0)
    if bad > _SHOWN_BAD:
        click.echo(f"… and {bad - _SHOWN_BAD:,} more bad lines", err=True)
    seconds = max(time.monotonic() - began, 1e-9)
    verb = "would be imported" if dry_run else "imported"
    click.echo(f"{taken:,} points {verb} in {seconds:.1f} s ({taken / seconds:,.0f}/s), bad lines left out: {bad:,}")
    if bad:
        raise click.exceptions.Exit(1)


class _source:  # noqa: N801 - used like a function
    """The pieces of a file, and a progress bar on a terminal."""

    def __init__(self, file: Path) -> None:
        self._file: IO[bytes] = sys.stdin.buffer if str(file) == "-" else file.open("rb")
        self._size = None if str(file) == "-" else file.stat().st_size
        self._bar: Any = None

    def __enter__(self) -> tuple[Iterator[bytes], Any]:
        if sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415 - only where it draws
            from rich.progress import Progress  # noqa: PLC0415

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("Importing", total=self._size)
        return iter(lambda: self._file.read(_READ_BYTES), b""), self._advance

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, _READ_BYTES)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._file is not sys.stdin.buffer:
            self._file.close()
