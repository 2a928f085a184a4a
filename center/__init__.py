"""The IoT Center: device registration API and the pages where people look at their sensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> Flask:
    """For `flask run` and `flask --app center run`: what is wrong is one sentence. Others take center.app's."""
    import click  # noqa: PLC0415 - importing the package is to cost nothing

    from center.errors import SettingsError, StoreError  # noqa: PLC0415 - as above

    try:
        from center.app import create_app as create  # noqa: PLC0415 - as above

        return create()
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed: pip install 'iot-edge-agent[center]'") from error
    except (SettingsError, StoreError, OSError) as error:
        raise click.ClickException(str(error)) from error
