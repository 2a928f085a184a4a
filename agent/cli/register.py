"""`iot-agent register` and `unregister`."""

from __future__ import annotations

import contextlib

import click

from agent.cli.options import Context, common_options
from agent.config.settings import CenterSettings, Settings
from agent.registration.credentials import CredentialStore
from agent.status.socket import ask
from agent.util.errors import EXIT_FAILED, AgentError, ConfigError


@click.command()
@click.option("--force", is_flag=True, help="Get a new token, also when there is one.")
@common_options
def register(context: Context, force: bool) -> None:
    """Register with the center now, and try the token. A running agent takes up a new one by itself.

    With --force exit 1 if nothing can be written with it afterwards.
    """
    from agent.delivery.trial import try_out  # noqa: PLC0415 - see below
    from agent.registration.policy import target_of, warnings_of  # noqa: PLC0415 - see below
    from agent.registration.registrar import obtain  # noqa: PLC0415 - an HTTP client and TLS come with it; --help does not need them

    settings, device_id, store = _center(context)
    with store.exclusive():
        old = store.load()
        if old and (old.center, old.device_id) != (settings.url, device_id):
            old = None
        if old and not force:
            where = target_of(settings, old)
            click.echo(f"{device_id} is registered with {settings.url} ({old.dialect}); it writes to {where.url}")
            click.echo("register --force gets a new token")
            return
        credentials, refused = obtain(settings, device_id, store, old, old.token if old else None)
        store.save(credentials)
    for text in refused:
        click.echo(f"warning: {text}", err=True)
    where = target_of(settings, credentials)
    for text in warnings_of(settings, store.folder, where):
        click.echo(f"warning: {text}", err=True)
    click.echo(f"registered {device_id} with {settings.url} ({credentials.dialect})")
    click.echo(f"it writes to {where.url}, organization {where.org}, bucket {where.bucket}")
    trial = try_out(where, settings.timeout, "its center should look at that bucket and the authorization (its log)")
    if trial.good:
        click.echo(trial.seen)
    elif force:
        raise AgentError(f"there is a new token, but {trial.seen}: {trial.remedy}")
    else:
        click.echo(f"warning: {trial.seen}: {trial.remedy}", err=True)


@click.command()
@common_options
def unregister(context: Context) -> None:
    """Remove this device's registration at the center, and the token here; with [mqtt] also what is published, and what
    Home Assistant shows of it. What was measured stays.
    """
    whole = context.settings()
    if (running := ask(context.state_dir)) is not None:
        raise AgentError(
            f"the agent runs (process {running.get('pid')}) and would register again: stop it first, by systemctl stop "
            "iot-agent, or by Ctrl-C where it was started by hand"
        )
    withdrawn = _withdraw(whole, context) if whole.mqtt else True
    if whole.center or not whole.mqtt:
        _leave(context)
    if not withdrawn:
        raise click.exceptions.Exit(EXIT_FAILED)


def _withdraw(settings: Settings, context: Context) -> bool:
    """Whether nothing of it stays at the MQTT broker, which may be away: the center is no less left for that."""
    from agent.mqtt.kept import withdraw  # noqa: PLC0415 - not for --help
    from agent.registration.device_id import device_id  # noqa: PLC0415
    from agent.util.state_folder import prepare  # noqa: PLC0415

    prepare(context.state_dir)
    name = device_id(settings.device.id, context.state_dir)
    try:
        withdraw(settings, name, context.state_dir)
    except AgentError as error:
        click.echo(f"warning: {name} stays at the MQTT broker, and in Home Assistant: {error}", err=True)
        click.echo("warning: then call unregister again, while [mqtt] is in the configuration", err=True)
        return False
    click.echo(f"removed {name} at the MQTT broker, and with that from Home Assistant")
    return True


def _leave(context: Context) -> None:
    from agent.registration.client import connect  # noqa: PLC0415 - an HTTP client and TLS come with it; --help does not need them
    from agent.registration.dialects import DIALECTS  # noqa: PLC0415 - see above

    settings, device_id, store = _center(context)
    with store.exclusive():
        old = store.load()
        of_another = old is not None and (old.center, old.device_id) != (settings.url, device_id)
        found = old.dialect if old and not of_another else "iot-center-v2"
        name = settings.api if settings.api != "auto" else found
        with contextlib.closing(connect(settings, store)) as center:
            there = DIALECTS[name].unregister(center, device_id)
        if not of_another:
            store.forget()
    if there:
        click.echo(f"removed {device_id} at {settings.url}: its token is worth nothing any more")
    else:
        click.echo(f"{settings.url} had no registration of {device_id}")
    if old and of_another:
        text = f"the token here is of {old.device_id} at {old.center}, and stays: name both in agent.toml to leave it"
        click.echo(f"warning: {text}", err=True)
    click.echo("What stays: on the server every point that was delivered; here the points that wait, and the device")
    click.echo(
        f"secret in {store.secret_path}. `iot-agent run` registers anew, with an enrollment key where one is asked."
    )


def _center(context: Context) -> tuple[CenterSettings, str, CredentialStore]:
    from agent.registration.device_id import device_id  # noqa: PLC0415 - not for --help
    from agent.util.state_folder import prepare  # noqa: PLC0415 - not for --help

    settings = context.settings()
    if settings.center is None:
        raise ConfigError(f"{context.config} has no [center]: with [influxdb] there is nothing to register")
    prepare(context.state_dir)
    return settings.center, device_id(settings.device.id, context.state_dir), CredentialStore(context.state_dir)
