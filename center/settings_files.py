"""Where the center's settings come from: center.toml, then the tutorial's config.ini, then environment variables.

config.ini ([APP] in the working directory) and the environment use the same five names: INFLUX_URL, INFLUX_TOKEN,
INFLUX_ORG, INFLUX_BUCKET, INFLUX_BUCKET_AUTH. The environment wins over center.toml, center.toml over config.ini.
"""

from __future__ import annotations

import configparser
import contextlib
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.config.records import VALIDATION, converter, problems
from agent.util.secret import Secret
from agent.util.text import read_text
from center.errors import SettingsError
from center.settings import INI_KEYS, InfluxSettings, Settings, VictoriaSettings

log = logging.getLogger(__name__)


def _secret(value: Any, _: Any) -> Secret:
    if not isinstance(value, str):
        raise ValueError("***: must be text in quotes")  # noqa: TRY004 - one error for all that is wrong
    return Secret(value)


_CONVERTER = converter()
_CONVERTER.register_structure_hook(Secret, _secret)


def _warn_if_exposed(path: Path, what: str) -> None:
    """Says it where others on this machine can read what only the center should."""
    with contextlib.suppress(OSError):
        if path.stat().st_mode & 0o077:
            log.warning("%s holds %s and others can read it: chmod 600 %s", path, what, path)


def _ini(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    if not os.path.isfile(path):  # noqa: PTH113 - as in load()
        return {}
    try:
        parser.read_string(read_text(path))
    except configparser.MissingSectionHeaderError as error:  # none of these is repeated: a line may hold the token
        raise SettingsError(f"{path}:{error.lineno}: the line [APP] is missing above this one") from None
    except configparser.ParsingError as error:
        raise SettingsError(f"{path}:{error.errors[0][0]}: this line is no NAME = value") from None
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        raise SettingsError(f"{path}:{error.lineno}: this name is there twice") from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error
    section = parser["APP"] if parser.has_section("APP") else {}
    return {INI_KEYS[key.upper()]: value for key, value in section.items() if key.upper() in INI_KEYS}


def _token(table: InfluxSettings | VictoriaSettings, where: str) -> Secret:
    """The token of a table, from its file if it is not there."""
    if table.token or not table.token_file:
        return table.token
    _warn_if_exposed(Path(table.token_file), "a token")
    try:
        return Secret(Path(table.token_file).read_text(encoding="utf-8").strip())
    except OSError as error:
        raise SettingsError(f"{where}.token_file = {table.token_file!r}: {error.strerror}") from error


def load(path: Path | None = None, *, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Settings:
    """Settings from a center.toml (default: ./center.toml, then /etc/iot-center/center.toml, if there), config.ini
    and the environment. Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    folder = folder or Path.cwd()
    given: dict[str, Any] = {}
    if path is None:
        places = (folder / "center.toml", Path("/etc/iot-center/center.toml"))
        path = next((p for p in places if os.path.isfile(p)), None)  # noqa: PTH113 - Path's raises where one may not look
    where = str(path) if path else "center settings"
    if path is not None:
        try:
            given = tomllib.loads(read_text(path))
        except ValueError as error:  # TOMLDecodeError among them
            raise SettingsError(f"{path}: {error}") from error
    if isinstance(given.get("embedded"), dict):  # [embedded] configures the store; `embedded = true` chooses it
        given["store"] = given.pop("embedded")
        given["embedded"] = given["store"].pop("enabled", False)
    ini = _ini(folder / "config.ini")
    given_influx = given.get("influxdb", {})
    influx: dict[str, Any] = {**ini, **given_influx}
    for name, key in INI_KEYS.items():
        if name in environ:
            influx[key] = environ[name]
    if influx:
        given["influxdb"] = influx
    try:
        settings = _CONVERTER.structure(given, Settings)
    except VALIDATION as error:  # what is `store` inside is [embedded] in the file
        lines = (f"{where}: {re.sub(r'^store[.]', 'embedded.', line)}" for line in problems(error))
        raise SettingsError("\n".join(lines)) from error
    has_token = any("token" in table for table in (given_influx, given.get("victoria", {})))
    if path is not None and (has_token or settings.server.session_key):
        _warn_if_exposed(path, "a token" if has_token else "a key")
    if "token" in ini:
        _warn_if_exposed(folder / "config.ini", "a token")
    server = settings.server
    if hosts := environ.get("TRUSTED_HOSTS"):
        names = tuple(name.strip() for name in hosts.split(",") if name.strip())
        server = replace(server, trusted_hosts=(*server.trusted_hosts, *names))
    if session_key := environ.get("IOT_CENTER_SESSION_KEY"):
        server = replace(server, session_key=Secret(session_key))
    influxdb, victoria = settings.influxdb, settings.victoria
    return replace(
        settings,
        server=server,
        influxdb=replace(influxdb, token=_token(influxdb, f"{where}: influxdb")),
        victoria=replace(victoria, token=_token(victoria, f"{where}: victoria")),
    )
