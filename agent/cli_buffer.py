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

from agent import lines as protocol
from agent.beside import Beside, Letter
from agent.cli_clock import date
from agent.cli_options import Context, common_options
from agent.rows import MAX_LINES, Kind, pack
from agent.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.beside import Waiting

_READ_BYTES = 2**20
_ROWS = 10
"""Rows that are imported in one transaction: a sync for 50,000 points."""
_SHOWN_BAD = 20
_FORMATS = click.Choice(["lp", "csv", "jsonl"])


def _folder(context: Context) -> Path:
    return context.state_dir / "buffer"


def _iso(time_ns: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    when = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{time_ns // 1_000_000 % 1000:03}Z"


def _since(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
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


@buffer.command("show")
@common_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(context: Context, as_json: bool) -> None:
    """How many points wait on disk, in which state, from when to when; and the counters as last saved."""
    with Beside(_folder(context)) as beside:
        points: Counter[str] = Counter()
        first, last = 2**63, 0
        for header in beside.headers():
            points[header.kind.name.lower()] += header.count
            if header.kind != Kind.UNDATED:
                first, last = min(first, header.first_ns), max(last, header.last_ns)
        saved = beside.counters()
    facts: dict[str, Any] = {
        "waiting": {kind.name.lower(): points[kind.name.lower()] for kind in Kind if kind != Kind.DEAD},
        "oldest": _iso(first) if last else None,
        "newest": _iso(last) if last else None,
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
@click.option("--since", callback=_since, help="Only points from then on: 2h, or 2026-01-31T12:00:00Z.")
@click.option("--output", "-o", type=click.File("wb", lazy=False), default="-", help="Default: standard output.")
def export(context: Context, kind: str, since: int | None, output: IO[bytes]) -> None:
    """Write what waits on disk. Nothing is removed. Points without a time yet appear as comments, in lp only."""
    with Beside(_folder(context)) as beside:

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
                    "time": _iso(point.stamp),
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
            table.writerow([_iso(point.stamp), point.measurement, *(point.tags.get(t, "") for t in tags), *values])


@buffer.command("import")
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
    with Beside(_folder(context), create=True) as beside, _source(file) as (pieces, progress):

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
                shown = line.line[:80].decode(errors="replace")
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
    click.echo(f"{taken:,} points {verb} in {seconds:.1f} s ({taken / seconds:,.0f}/s), {bad:,} bad lines left out")
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


@click.group()
def rejected() -> None:
    """Points that the server refused: look at them, export, deliver again once the cause is mended, remove."""


def _chosen(reason: str | None, since: int | None, numbers: tuple[str, ...]) -> Any:
    def chosen(item: Letter) -> bool:
        return (
            (reason is None or item.letter.reason == reason)
            and (since is None or item.letter.time_ns >= since)
            and (not numbers or item.number in numbers or item.number.split(".")[0] in numbers)
        )

    return chosen


def _choice(command: Any) -> Any:
    """The options that choose letters."""
    for option in (
        click.option("--reason", help="Only letters with this reason, as `list` shows it."),
        click.option("--since", callback=_since, help="Only points refused from then on: 2h, or a date and time."),
        click.argument("numbers", nargs=-1),
    ):
        command = option(command)
    return command


@rejected.command("list")
@common_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(context: Context, as_json: bool) -> None:
    """Reasons and messages, how often, and when last."""
    groups: dict[tuple[str, str], list[Any]] = {}
    with Beside(_folder(context)) as beside:
        for item in beside.letters():
            letter = item.letter
            group = groups.setdefault((letter.reason, _shape(letter.message)), [0, 0, item.number])
            group[0] += 1
            group[1] = max(group[1], letter.time_ns)
    if as_json:
        rows = [
            {"reason": reason, "message": message, "points": n, "last": _iso(when), "example": number}
            for (reason, message), (n, when, number) in groups.items()
        ]
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    if not groups:
        click.echo("No point was refused.")
    for (reason, message), (n, when, number) in sorted(groups.items(), key=lambda g: -g[1][0]):
        click.echo(f"{n:>9,}  {reason:<14} last {_iso(when)}  e.g. {number}\n{'':>11}{message}")


def _shape(message: str) -> str:
    """A message without the line it quotes, so that those of one cause are one group."""
    before, quote, rest = message.partition("unable to parse '")
    return f"{before}{quote}…{rest[rest.rfind(chr(39)) :]}" if quote else message


@rejected.command("show")
@common_options
@_choice
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
def show_letters(context: Context, numbers: tuple[str, ...], reason: str | None, since: int | None, limit: int) -> None:
    """Refused points, with number, time, reason and the server's words. NUMBERS: 3 (a batch) or 3.17 (a point)."""
    chosen = _chosen(reason, since, numbers)
    shown = 0
    with Beside(_folder(context)) as beside:
        for item in beside.letters():
            if not chosen(item):
                continue
            if shown == limit:
                click.echo("… there are more: see --limit")
                return
            shown += 1
            letter = item.letter
            click.echo(f"{item.number}  {_iso(letter.time_ns)}  {letter.reason}: {letter.message}")
            click.echo(f"    {letter.line.decode(errors='replace')}")
    if not shown:
        click.echo("No refused point matches.")


@rejected.command("export")
@common_options
@_choice
@click.option("--format", "kind", type=click.Choice(["lp", "jsonl"]), default="lp", show_default=True)
@click.option("--output", "-o", type=click.File("wb", lazy=False), default="-")
def export_letters(  # noqa: PLR0917 - click passes them by name
    context: Context, numbers: tuple[str, ...], reason: str | None, since: int | None, kind: str, output: IO[bytes]
) -> None:
    """Write refused points as line protocol, or with reason and message as JSON. Nothing is removed."""
    chosen = _chosen(reason, since, numbers)
    with Beside(_folder(context)) as beside:
        for item in filter(chosen, beside.letters()):
            letter = item.letter
            if kind == "lp":
                output.write(letter.line + b"\n")
            else:
                text = letter.line.decode("utf-8", "replace")
                row = {"number": item.number, "time": _iso(letter.time_ns), "reason": letter.reason}
                output.write(json.dumps(row | {"message": letter.message, "line": text}).encode() + b"\n")


@rejected.command("replay")
@common_options
@_choice
def replay(context: Context, numbers: tuple[str, ...], reason: str | None, since: int | None) -> None:
    """Let the agent deliver refused points again; all, unless chosen otherwise. What is refused again comes back."""
    with Beside(_folder(context)) as beside:
        done = beside.remove(_chosen(reason, since, numbers), replay=True)
    click.echo(f"{done:,} points wait to be delivered again")


@rejected.command("purge")
@common_options
@_choice
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(context: Context, numbers: tuple[str, ...], reason: str | None, since: int | None, yes: bool) -> None:
    """Remove refused points for good; all, unless chosen otherwise. They stay counted as rejected."""
    with Beside(_folder(context)) as beside:
        chosen = _chosen(reason, since, numbers)
        number = sum(map(chosen, beside.letters()))
        if number and not yes:
            click.confirm(f"Remove {number:,} refused points for good?", abort=True)
        done = beside.remove(chosen, replay=False)
    click.echo(f"{done:,} points removed")
