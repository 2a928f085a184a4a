"""`iot-center enroll`: enrollment keys."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import click

from agent.util.service import acting_as
from center.errors import SettingsError
from center.options import duration, opened, with_settings
from center.settings import Settings
from center.stores.registry import EnrollmentKey
from center.times import iso, now_ns


@click.command(short_help="Make, list or revoke enrollment keys of devices.")
@with_settings
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
    lasts = duration("--expires", expires)
    if lasts == 0:
        raise SettingsError(f"--expires {expires}: that key would be over at once")
    with contextlib.ExitStack() as stack:
        file = None
        if output and not (show or revoke):
            file = stack.enter_context(_new_file(output))  # before there is a key to be lost
        stack.enter_context(acting_as("iot-center"))
        registry = stack.enter_context(opened(settings)).registry
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
