"""What a center's answers must be, checked field by field, whatever the dialect."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent.config.limits import check_url
from agent.registration.client import NotThisApiError, RegistrationError
from agent.util.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.registration.client import Answer, CenterClient

_TOKEN = re.compile(r"[!-~]{1,1024}")
PLACEHOLDER = "fake_auth_token"
UNKNOWN_HERE = (
    "this device's secret was lost, or another board has the same id. An administrator of the center must remove {id} "
    "there; then it registers by itself. Or choose another [device] id"
)
SOON_UNKNOWN = (
    "the device secret is gone. The token still works; before the next one can be had, an administrator of the center "
    "must remove {id} there"
)


class TokenWithheldError(RegistrationError):
    """The device is registered, and the server does not hand out the token (again)."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What an answer said, checked. `fields` are the raw numbers for remote.accept, `url` … None where not said."""

    token: Secret
    key: str = ""
    url: str | None = None
    org: str | None = None
    bucket: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a center says to a device that is registered: None and missing where it does not."""

    url: str | None
    org: str | None
    bucket: str | None
    fields: Mapping[str, Any] = field(repr=False)
    refused: tuple[str, ...] = ()


class NotRegisteredError(RegistrationError):
    """The center answers that it has no registration of this device."""


def already_registered(answer: Answer) -> bool:
    return (
        answer.status == 500
        and re.search(rb"already (?:registered|exists|has an)", answer.body, re.IGNORECASE) is not None
    )


def check_status(answer: Answer, device_id: str) -> None:
    """Raises the error that the status stands for; returns for 200 and 201 with something that is not HTML."""
    if answer.status in (200, 201):
        if answer.is_html():
            raise NotThisApiError(str(_html(answer)))
        return
    if answer.status in (404, 405, 501):
        raise NotThisApiError(f"{answer.what}: {answer.status}")
    if already_registered(answer):
        raise TokenWithheldError(f"{answer.what}: {answer.message()}")
    if answer.status == 409 and answer.retry_after_s() is None:
        raise answer.refused(UNKNOWN_HERE.format(id=device_id))
    if answer.status in (401, 403):
        hint = "if it asks for an enrollment key, an administrator makes one: set [center] enrollment_key_file to it"
        raise answer.refused(answer.key_problem or hint)
    raise answer.refused()


def _html(answer: Answer) -> RegistrationError:
    return RegistrationError(f"{answer.what}: {answer.status} with HTML, not JSON: it begins {answer.excerpt(60)}")


def check_own(answer: Answer, record: Mapping[str, Any], name: str, device_id: str) -> None:
    if name not in record:
        raise NotThisApiError(f"{answer.what}: {answer.status} with a JSON object without {name}")
    if record[name] != device_id:
        raise RegistrationError(
            f"{answer.what}: the answer is for {str(record[name])[:64]!r}, not for {device_id}: nothing of it is used"
        )


def registration(
    center: CenterClient, answer: Answer, record: Mapping[str, Any], token_name: str, key_name: str | None
) -> Registration:
    tell_time(center, record)
    key = record.get(key_name) if key_name else None
    return Registration(
        token=token_of(answer, record.get(token_name), token_name),
        key=key[:200] if isinstance(key, str) else "",
        url=place(answer, record, "influx_url"),
        org=place(answer, record, "influx_org"),
        bucket=place(answer, record, "influx_bucket"),
        fields=record,
    )


def token_of(answer: Answer, value: object, name: str) -> Secret:
    """A token that can be used. What came instead is described, never shown."""
    if value is None or value == "":
        raise TokenWithheldError(f"{answer.what}: {answer.status} with an empty {name}: registered, but not handed out")
    if not isinstance(value, str):
        raise RegistrationError(f"{answer.what}: {name} is a JSON {type(value).__name__}, not a string")
    if value.startswith(PLACEHOLDER):
        raise RegistrationError(
            f"{answer.what}: {name} is a placeholder (fake_auth_token_…): this server issues no tokens to write with. "
            "Use [influxdb] with a token made by hand"
        )
    if not _TOKEN.fullmatch(value):
        raise RegistrationError(f"{answer.what}: {name} holds what no token holds (spaces, control characters, length)")
    return Secret(value)


def place(answer: Answer, record: Mapping[str, Any], name: str) -> str | None:
    """influx_url, influx_org or influx_bucket of the answer; None when it is not there or empty."""
    value = record.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 500 or not value.isprintable():
        raise RegistrationError(f"{answer.what}: {name} is not a string that can be one")
    if name != "influx_url":
        return value
    try:
        return check_url(value)
    except ValueError as error:
        raise RegistrationError(f"{answer.what}: influx_url: {error}") from None


def tell_time(center: CenterClient, record: Mapping[str, Any]) -> None:
    """ServerTime (ISO 8601, to the ms) to the clock."""
    text = record.get("serverTime")
    if not isinstance(text, str):
        return
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return
    if moment.tzinfo is not None:
        center.tell_time(round(moment.timestamp() * 1000) * 1_000_000, 1_000_000)
